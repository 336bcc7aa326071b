"""One queue and one guard process behind every wire."""
