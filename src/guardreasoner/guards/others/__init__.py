"""Other people's guards: a table of rows, their prompts, and one class that runs them."""
