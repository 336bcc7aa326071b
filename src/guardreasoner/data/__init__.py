"""Data as literal tables: seeds, benchmarks, published numbers, and the row functions that read them."""
