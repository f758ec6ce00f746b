"""Units: what people write, the number in it, and back."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from serinus.api.cel import quote
from serinus.api.units import DURATION_PATTERN, PERCENT_PATTERN, QUANTITY_PATTERN, Duration, Limits, Percent, Quantity


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("50ms", 0.05),
        ("1.5s", 1.5),
        ("10m", 600),
        ("1h", 3600),
        ("2w", 1209600),
        ("100us", 0.0001),
        ("1d", 86400),
    ],
)
def test_duration(text: str, seconds: float) -> None:
    assert math.isclose(TypeAdapter(Duration).validate_python(text).seconds, seconds)


@pytest.mark.parametrize(
    ("unit", "text"),
    [(Duration, text) for text in ("", "5", "5 ms", "-5ms", "ms", "5ns", "1h30m", "5MS", "٣s", "5ms\n", "1e3s", ".5s")]
    + [(Percent, text) for text in ("", "5", "101%", "-1%", "5 %", "100.1%", "1e1%", "%")]
    + [(Quantity, text) for text in ("", "4GB", "-1", "1 Gi", "Gi", "1e3", "0x10")],
)
def test_other_texts_are_refused_with_advice(unit: type[Any], text: str) -> None:
    with pytest.raises(ValidationError, match="for example"):
        TypeAdapter(unit).validate_python(text)


@given(st.from_regex(DURATION_PATTERN, fullmatch=True))
def test_every_duration_has_a_number(text: str) -> None:
    assert math.isfinite(TypeAdapter(Duration).validate_python(text).seconds)


@given(st.from_regex(PERCENT_PATTERN, fullmatch=True))
def test_every_percent_is_a_share(text: str) -> None:
    assert 0 <= TypeAdapter(Percent).validate_python(text).fraction <= 1


@given(st.from_regex(QUANTITY_PATTERN, fullmatch=True))
def test_every_quantity_has_a_number(text: str) -> None:
    assert TypeAdapter(Quantity).validate_python(text).number >= 0


@given(st.floats(1e-6, 1e8))
def test_a_number_of_seconds_is_spelt_as_a_duration_near_it(seconds: float) -> None:
    spelt = TypeAdapter(Duration).validate_python(Duration.of(seconds))
    assert math.isclose(spelt.seconds, seconds, rel_tol=0.06, abs_tol=1e-6)


@given(st.floats(0, 1))
def test_a_fraction_is_spelt_as_a_percent_near_it(fraction: float) -> None:
    spelt = TypeAdapter(Percent).validate_python(Percent.of(fraction))
    assert math.isclose(spelt.fraction, fraction, rel_tol=0.06, abs_tol=1e-4)


def test_limits() -> None:
    bounded = TypeAdapter(Annotated[Duration, Limits(Duration, "<=", "1h", "write 1h or less")])
    assert bounded.validate_python("60m") == "60m"
    with pytest.raises(ValidationError, match="write 1h or less"):
        bounded.validate_python("61m")


@given(st.text(max_size=20))
def test_quoted_text_has_no_open_end(text: str) -> None:
    inner = quote(text)[1:-1]
    assert re.fullmatch(r"(?:[^'\\]|\\.)*", inner, re.DOTALL)
