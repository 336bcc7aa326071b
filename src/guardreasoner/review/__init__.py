"""Labels that look wrong, people's corrections, and scores on the corrected labels."""
