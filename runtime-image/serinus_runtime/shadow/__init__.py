"""Shadow releases: a tap on the predictions of each pod, and the joiner that compares two revisions by request id."""
