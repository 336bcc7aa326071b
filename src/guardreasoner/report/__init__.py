"""A report over finished runs: tables, figures, Markdown and HTML."""
