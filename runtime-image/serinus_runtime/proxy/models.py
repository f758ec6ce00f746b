"""Names of models, as clients and as the engine know them."""

from __future__ import annotations

ANY = "*"
"""Stands for every name that is not named."""


def parse_models(text: str) -> tuple[tuple[str, str], ...]:
    """`served=engine` pairs, comma-separated; a bare name stands for itself, `*` for every other. ValueError if not."""
    pairs: dict[str, str] = {}
    for part in filter(None, (each.strip() for each in text.split(","))):
        served, equals, engine = (each.strip() for each in part.partition("="))
        if not served or (equals and not engine) or (served == ANY and equals):
            raise ValueError(f"{part!r} is not a name: write name, name=name-in-the-engine, or * for any name")
        if served in pairs:
            raise ValueError(f"{served!r} is named twice")
        pairs[served] = engine or served
    return tuple(pairs.items())
