"""Labelled rows to reasoning traces: a teacher model writes them, or published ones are read."""
