"""Engines: prompt in, text out. One module per runtime; each imports its library only when it is used."""
