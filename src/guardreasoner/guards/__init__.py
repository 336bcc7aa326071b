"""Guards: exchanges in, verdicts out."""
