"""The runtime's own package as a wheel: where it is compiled, and what makes a new one."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from cluster import packages, wheel


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of one module, whose wheels go to a cache of their own."""
    folder = tmp_path / "source"
    (folder / "small").mkdir(parents=True)
    (folder / "small" / "__init__.py").write_text("ANSWER = 42\n")
    (folder / "setup.py").write_text(
        "import os\nfrom setuptools import setup\nsetup(name='small', packages=['small'], "
        "version='1.0' + ('+compiled' if os.environ.get('SERINUS_COMPILE') == '1' else ''))\n"
    )
    monkeypatch.setattr(wheel, "SOURCE", folder)
    monkeypatch.setenv("SERINUS_CACHE", str(tmp_path / "cache"))
    return folder


@pytest.mark.parametrize("compiled", [True, False])
def test_a_wheel_is_made_once_per_content_and_recipe(
    source: Path, monkeypatch: pytest.MonkeyPatch, *, compiled: bool
) -> None:
    monkeypatch.setattr(wheel, "recipe", lambda: "mypyc 1" if compiled else "python")
    monkeypatch.setattr(packages, "install", lambda _: None)
    site = wheel.unpacked()
    assert (site / "small" / "__init__.py").read_text() == "ANSWER = 42\n"
    (made,) = wheel.wheel().iterdir()
    assert ("compiled" in made.name) is compiled
    (source / "build").mkdir()
    (source / "build" / "left.py").write_text("")
    assert wheel.unpacked() == site
    (source / "small" / "__init__.py").write_text("ANSWER = 43\n")
    assert wheel.unpacked() != site
    monkeypatch.setattr(wheel, "recipe", lambda: "another")
    (source / "small" / "__init__.py").write_text("ANSWER = 42\n")
    assert wheel.unpacked() != site


def test_without_a_compiler_or_the_images_python_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 11, 2))
    monkeypatch.setattr(packages, "missing", lambda _: ["gcc"])
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert wheel.recipe() == "python"
    monkeypatch.setattr(packages, "missing", lambda _: [])
    assert wheel.recipe().startswith("mypyc ")
    monkeypatch.setattr(sys, "version_info", (3, 12, 1))
    assert wheel.recipe() == "python"
