"""Finished runs to one report: tables, figures, Markdown and HTML."""
