"""The sections of a report, in words: each function turns values into blocks; plain text only."""
