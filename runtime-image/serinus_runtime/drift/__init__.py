"""Drift: how far what is asked and answered now is from what the model was made with."""
