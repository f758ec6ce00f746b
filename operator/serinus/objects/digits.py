"""Ids by two of their digits, as regular expressions for header matches."""

from __future__ import annotations

from collections.abc import Iterable

_DIGITS = "0123456789abcdef"


def any_digit(base: int) -> str:
    """An expression for one digit of base 10 or 16."""
    return "[0-9]" if base == 10 else "[0-9a-fA-F]"


def second_digits(values: Iterable[int], base: int) -> dict[str, str]:
    """Values of two digits, in order: the second digits by the first one."""
    found: dict[str, str] = {}
    for value in values:
        first = _DIGITS[value // base]
        found[first] = found.get(first, "") + _DIGITS[value % base]
    return found


def either_case(digits: str) -> str:
    """Digits, and the letters among them as capitals too."""
    return digits + "".join(digit.upper() for digit in digits if digit.isalpha())
