"""Every strategy with every kind of candidate while something goes wrong, on a real cluster under load."""
