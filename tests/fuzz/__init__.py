"""Coverage-guided fuzzing of everything of ours that reads what strangers send: `python -m fuzz TARGET SECONDS`."""
