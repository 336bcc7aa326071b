"""Wire formats: one thin module each, request in, `Exchange` out, `Verdict` in, reply out."""
