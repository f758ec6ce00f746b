"""The column "Where" of docs/runtime/robustness.md: each row names tests or fuzz targets, and all of them exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fuzz.targets import TARGETS

ROOT = Path(__file__).parents[3]
_TEXT = (ROOT / "docs/runtime/robustness.md").read_text()
_ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in _TEXT.splitlines()
    if line.startswith("| ") and not line.startswith("| Tried ")
]


@pytest.mark.parametrize("row", _ROWS, ids=lambda row: row[0][:50])
def test_where_a_row_says_that_it_is_proved_is_a_test_or_a_target(row: list[str]) -> None:
    assert len(row) == 3
    tests, _, targets = row[2].partition("fuzz ")
    files, fuzzed = re.findall(r"`([^`]+)`", tests), re.findall(r"`([^`]+)`", targets)
    assert files
    for name in files:
        folder, pattern = (ROOT, name) if "/" in name else (ROOT / "tests/unit/runtime", name)
        assert re.search(r"(^|/)test_[\w*]+\.py$", name), f"{name} is no file of tests"
        assert any(folder.glob(pattern)), f"{name} does not exist"
    assert bool(targets) == bool(fuzzed)
    assert not set(fuzzed) - TARGETS.keys()


def test_there_are_rows_and_every_test_of_the_page_is_in_one() -> None:
    assert len(_ROWS) > 25
    assert set(re.findall(r"`[\w/*]*test_[\w*]+\.py`", _TEXT)) == {
        name for row in _ROWS for name in re.findall(r"`[^`]*test_[^`]*`", row[2])
    }
