"""The shape of the repository that other things rely on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_operator_folder_does_not_shadow_the_standard_library() -> None:
    assert not (ROOT / "operator" / "__init__.py").exists()
    subprocess.run([sys.executable, "-c", "import collections, operator; operator.add"], cwd=ROOT, check=True)


def test_imports_point_one_way() -> None:
    """The layers of the design, as import-linter contracts in pyproject.toml."""
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [lint, "--no-cache"], cwd=ROOT, env={"PYTHONPATH": "operator"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_product_never_imports_its_test_cluster() -> None:
    for path in [*(ROOT / "operator").rglob("*.py"), *(ROOT / "runtime-image").rglob("*.py")]:
        text = path.read_text()
        assert "\nimport cluster" not in text, path
        assert "\nfrom cluster" not in text, path
