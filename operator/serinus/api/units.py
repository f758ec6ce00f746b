"""Quantities as people write them in a ModelDeployment: `50ms`, `0.1%`.

Each is a `str` subclass, so that what the user wrote is what is stored, shown and hashed; the number is a property.
"""

from __future__ import annotations

import re
from typing import Any, Self

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
DURATION_PATTERN = r"^(0|[0-9]+(\.[0-9]+)?(us|ms|s|m|h|d|w))$"
PERCENT_PATTERN = r"^(100(\.0+)?|[0-9]{1,2}(\.[0-9]+)?)%$"
QUANTITY_PATTERN = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"
_BINARY = {
    "": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15,
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50,
}  # fmt: skip


class _Text(str):
    pattern = ""
    description = ""
    max_length = 32

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        text = core_schema.str_schema(pattern=cls.pattern, max_length=cls.max_length)
        return core_schema.no_info_after_validator_function(
            cls, text, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )


class Duration(_Text):
    """A length of time: a number and one of us, ms, s, m, h, d, w. `0` needs no unit."""

    pattern = DURATION_PATTERN
    description = "A number and a unit: us, ms, s, m, h, d or w, for example 50ms, 10m or 2w."

    @property
    def seconds(self) -> float:
        """The duration in seconds."""
        if self == "0":
            return 0.0
        match = re.fullmatch(r"([0-9.]+)([a-z]+)", self)
        if match is None:
            raise ValueError(f"{self!r} is not a duration; write a number and a unit, for example 50ms or 10m")
        return float(match[1]) * _SECONDS[match[2]]

    @classmethod
    def of(cls, seconds: float) -> Self:
        """The shortest usual spelling of a number of seconds: `of(0.0213)` is `21ms`, `of(95)` is `95s`."""
        if seconds < 0.0995:
            return cls(f"{seconds * 1000:.3g}ms") if seconds >= 0.001 else cls(f"{round(seconds * 1e6)}us")
        if seconds < 1:
            return cls(f"{round(seconds * 1000)}ms")
        if seconds < 10:
            return cls(f"{seconds:.2f}".rstrip("0").rstrip(".") + "s")
        for unit, size in (("w", 604800), ("d", 86400), ("h", 3600), ("m", 60)):
            if seconds >= 2 * size and seconds % size < 1e-9:
                return cls(f"{round(seconds / size)}{unit}")
        return cls(f"{round(seconds)}s")


class Percent(_Text):
    """A share between 0 % and 100 %, written with its sign: `0.1%`."""

    pattern = PERCENT_PATTERN
    description = "A number from 0 to 100 and a percent sign, for example 0.1%."

    @property
    def fraction(self) -> float:
        """The share as a fraction: `0.1%` is 0.001."""
        return float(self[:-1]) / 100.0

    @classmethod
    def of(cls, fraction: float) -> Self:
        """A fraction as people read it, two significant digits or two decimals: `of(0.00021)` is `0.021%`."""
        value = fraction * 100
        text = f"{value:.2g}" if value < 0.1 else f"{value:.2f}".rstrip("0").rstrip(".")
        return cls(f"{float(text):.10f}".rstrip("0").rstrip(".") + "%")


class Quantity(_Text):
    """A Kubernetes resource quantity such as `500m`, `2` or `4Gi`."""

    pattern = QUANTITY_PATTERN
    description = "A Kubernetes quantity, for example 500m, 2 or 4Gi."

    @property
    def number(self) -> float:
        """The quantity in its base unit (cores, bytes, devices)."""
        match = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", self)
        if match is None:
            raise ValueError(f"{self!r} is not a quantity; write for example 500m, 2 or 4Gi")
        if match[2] == "m":
            return float(match[1]) / 1000
        return float(match[1]) * _BINARY[match[2]]
