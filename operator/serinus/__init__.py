"""Serinus: a Kubernetes operator that releases machine-learning model versions safely."""

__version__ = "0.1.0"
