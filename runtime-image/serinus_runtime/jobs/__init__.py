"""Predictions that are asked for now and fetched later: submit, poll, cancel, be called back."""
