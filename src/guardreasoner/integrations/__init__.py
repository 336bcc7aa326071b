"""In-process integrations: one thin file per framework."""
