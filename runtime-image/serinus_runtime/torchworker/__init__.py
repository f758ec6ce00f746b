"""What runs in the worker's own interpreter: the standard library, numpy and torch; nothing else of the runtime."""
