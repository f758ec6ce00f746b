"""`serinus` and `kubectl serinus`: what people see of a release, and what they ask for."""
