"""The sections of a report: each function turns values into blocks of plain text."""
