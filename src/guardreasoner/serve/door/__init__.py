"""Everything between the socket and a wire format: connections, limits, keys, log, metrics."""
