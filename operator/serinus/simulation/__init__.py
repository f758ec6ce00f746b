"""Releases without a cluster: the operator's own state machine against invented or recorded traffic."""
