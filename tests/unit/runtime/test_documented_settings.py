"""Each setting that a page names exists, each that exists has one row in one table, and it says the true default."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from serinus_runtime.config import SETTINGS, from_environment

ROOT = Path(__file__).parents[3]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md"), ROOT / "runtime-image/README.md"])
OTHERS = {
    "SERINUS_CONFIG": "names the file of settings",
    "SERINUS_ENGINE_PORT": "the operator's, in an engine's container",
    "SERINUS_ENGINE_GRPC_PORT": "the operator's, in an engine's container",
    "SERINUS_OPERATOR_NAMESPACE": "the command line's",
    "SERINUS_COMPILE": "of the build",
    "SERINUS_RUNTIME_BUILD": "of the tests",
    "SERINUS_SAME_EXAMPLES": "of the tests",
}
KNOWN = {f"SERINUS_{field.upper()}" for field in SETTINGS}
_NAME = re.compile(r"SERINUS_[A-Z0-9_]+")
_ROW = re.compile(r"^\| (`SERINUS_[^|]*) \| ([^|]*) \|", re.MULTILINE)

_TABLE = re.compile(r"^\| variable \| default \|.*\n((?:\|.*\n)+)", re.MULTILINE)


def _named(page: Path) -> set[str]:
    return set(_NAME.findall(page.read_text()))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_names_exists(page: Path) -> None:
    # A name that ends in an underscore stands for several: SERINUS_ASYNC_*.
    unknown = {
        name for name in _named(page) - KNOWN - OTHERS.keys()
        if not (name.endswith("_") and any(known.startswith(name) for known in KNOWN))
    }  # fmt: skip
    assert not unknown


def test_every_setting_has_one_row_in_one_table() -> None:
    rows: Counter[str] = Counter()
    for page in PAGES:
        for table in _TABLE.findall(page.read_text()):
            for row in table.splitlines():
                rows.update(re.findall(r"`(SERINUS_[A-Z0-9_]+)`", row.split("|")[1]))
    assert sorted(KNOWN - rows.keys()) == [], "no row"
    assert {name: count for name, count in rows.items() if count > 1} == {}, "rows that can come to differ"


def test_what_is_no_setting_is_still_named() -> None:
    assert not OTHERS.keys() - set().union(*map(_named, PAGES)), "no longer named: take it out of OTHERS"


def _rows() -> list[tuple[str, str]]:
    """Each setting with the default that a table gives, where it is written as a value."""
    found = []
    for page in PAGES:
        for names, defaults in _ROW.findall(page.read_text()):
            fields, values = re.findall(r"`(SERINUS_[A-Z0-9_]+)`", names), re.findall(r"`([^`]*)`", defaults)
            if len(fields) == len(values) and defaults.count(",") == len(values) - 1:
                found += zip(fields, values, strict=True)
    return found


@pytest.mark.parametrize(("name", "value"), _rows())
def test_a_table_says_the_true_default(name: str, value: str) -> None:
    assert from_environment({name: value}) == from_environment({}), f"{name} is not {value} when it is not set"


def test_there_are_tables() -> None:
    assert len(_rows()) > 60
