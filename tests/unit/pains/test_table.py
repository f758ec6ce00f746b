"""The table in docs/pains.md names every test of a pain, and no test that is not there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_table_and_tests_agree() -> None:
    named = set(re.findall(r"`((?:unit|api|e2e)/[\w/]+\.py)`", (ROOT / "docs/pains.md").read_text()))
    tests = ROOT / "tests"
    assert [name for name in named if not (tests / name).is_file()] == []
    numbered = {str(path.relative_to(tests)) for path in tests.glob("*/pains/test_[0-9]*.py")}
    assert numbered <= named
