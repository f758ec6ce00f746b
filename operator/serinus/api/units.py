"""Quantities as people write them in a ModelDeployment: `50ms`, `0.1%`.

Each is a `str` subclass, so that what the user wrote is what is stored, shown and hashed; the number is a property.
"""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from serinus.api.cel import Cel, Matching, quote, with_rules

_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
# Digits are bounded so that no number overflows on its way through Go, CEL or Python.
DURATION_PATTERN = r"^(0|[0-9]{1,9}(\.[0-9]{1,9})?(us|ms|s|m|h|d|w))$"
PERCENT_PATTERN = r"^(100(\.0{1,9})?|[0-9]{1,2}(\.[0-9]{1,9})?)%$"
QUANTITY_PATTERN = r"^[0-9]{1,15}(\.[0-9]{1,9})?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"
_BINARY = {
    "": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15,
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50,
}  # fmt: skip


class Text(str):
    """Base of the units: a text with a number in it."""

    pattern: ClassVar[str]
    advice: ClassVar[str]
    """What to write, for the message of a refused value."""
    max_length: ClassVar[int] = 32

    @property
    def measure(self) -> float:
        """The number, for comparisons with others of the same unit."""
        raise NotImplementedError

    @classmethod
    def cel(cls, text: str, operator: str, limit: str) -> str:
        """CEL that compares the CEL expression `text` with `limit`, a literal of this unit. Needs a valid `text`."""
        raise NotImplementedError

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        text = Matching(cls.pattern, cls.advice, cls.max_length).__get_pydantic_core_schema__(str, handler)
        return core_schema.no_info_after_validator_function(
            cls, text, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return with_rules(handler(schema), Matching(cls.pattern, cls.advice, cls.max_length).rules[0])


@dataclass(frozen=True)
class Limits:
    """Bounds of a unit, as an annotation: `Annotated[Duration, Limits(Duration, "<=", "1h", "...")]`."""

    unit: type[Text]
    operator: str
    """One of >, >=, <, <=."""
    limit: str
    why: str
    """What to write instead."""

    def check(self, value: Text) -> Text:
        """`value` itself.

        Raises:
            PydanticCustomError: it is out of bounds.
        """
        if not _COMPARE[self.operator](value.measure, self.unit(self.limit).measure):
            raise PydanticCustomError("limit", "{message}", {"message": self.why})
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        valid = f"self.matches({quote(self.unit.pattern)})"
        rule = f"!{valid} || {self.unit.cel('self', self.operator, self.limit)}"
        return with_rules(handler(schema), Cel(rule, self.why))


_COMPARE = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}


class Duration(Text):
    """A length of time: a number and one of us, ms, s, m, h, d, w. `0` needs no unit."""

    pattern = DURATION_PATTERN
    advice = "write a number and a unit (us, ms, s, m, h, d or w) without spaces, for example 50ms, 10m or 2w"

    @property
    def measure(self) -> float:
        return self.seconds

    @classmethod
    def cel(cls, text: str, operator: str, limit: str) -> str:
        return f"{cls.cel_seconds(text)} {operator} {cls(limit).seconds!r}"

    @classmethod
    def cel_seconds(cls, text: str) -> str:
        """CEL for the seconds in the CEL expression `text`."""
        units = ", ".join(f"'{unit}': {size:.6f}" for unit, size in _SECONDS.items())
        return f"({text} == '0' ? 0.0 : double({text}.find('^[0-9.]+')) * {{{units}}}[{text}.find('[a-z]+$')])"

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


class Percent(Text):
    """A share between 0 % and 100 %, written with its sign: `0.1%`."""

    pattern = PERCENT_PATTERN
    advice = "write a number from 0 to 100 and a percent sign, for example 0.1%"

    @property
    def measure(self) -> float:
        return float(self[:-1])

    @classmethod
    def cel(cls, text: str, operator: str, limit: str) -> str:
        return f"double({text}.find('^[0-9.]+')) {operator} {cls(limit).measure!r}"

    @property
    def fraction(self) -> float:
        """The share as a fraction: `0.1%` is 0.001."""
        return float(self[:-1]) / 100.0

    @classmethod
    def of(cls, fraction: float) -> Self:
        """A fraction as people read it, two significant digits or two decimals: `of(0.00021)` is `0.021%`."""
        value = fraction * 100
        text = f"{value:.2g}" if value < 0.1 else f"{value:.2f}".rstrip("0").rstrip(".")
        return cls(f"{float(text):.9f}".rstrip("0").rstrip(".") + "%")


class Quantity(Text):
    """A Kubernetes resource quantity such as `500m`, `2` or `4Gi`."""

    pattern = QUANTITY_PATTERN
    advice = "write a Kubernetes quantity, for example 500m, 2 or 4Gi"

    @property
    def measure(self) -> float:
        return self.number

    @classmethod
    def cel(cls, text: str, operator: str, limit: str) -> str:
        return f"quantity({text}).compareTo(quantity({quote(limit)})) {operator} 0"

    @property
    def number(self) -> float:
        """The quantity in its base unit (cores, bytes, devices)."""
        match = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", self)
        if match is None:
            raise ValueError(f"{self!r} is not a quantity; write for example 500m, 2 or 4Gi")
        if match[2] == "m":
            return float(match[1]) / 1000
        return float(match[1]) * _BINARY[match[2]]
