"""Everything between the socket and a wire: connections, limits, keys, log, metrics."""
