"""Who may call the server, how much, and what is recorded of it: connection, keys, limits, log, metrics."""
