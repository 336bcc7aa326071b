"""Data as literal tables (seeds, benchmarks, published numbers) and the functions that read rows."""
