"""The worked example: a fraud scorer that is trained, served, released, broken and rolled back on a real cluster."""
