"""The edge that does what the state machine wants done outside. See `serinus.release.errands`."""

from serinus.errands.edge import ErrandError, Errands, Runner

__all__ = ["ErrandError", "Errands", "Runner"]
