"""Builders of Kubernetes objects from a plan, and the reading of them back. Plain dicts, no client."""
