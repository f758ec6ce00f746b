"""Images: what makes a new one, and archives without an engine."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from cluster import ClusterError, images
from cluster.images import Image
from cluster.scratch import ScratchImage


@pytest.fixture
def image(tmp_path: Path) -> Image:
    """An image with one source file."""
    context = tmp_path / "context"
    (context / "package" / "__pycache__").mkdir(parents=True)
    (context / "Containerfile").write_text("FROM scratch\n")
    (context / "package" / "main.py").write_text("print()\n")
    (context / "package" / "__pycache__" / "main.pyc").write_text("1")
    (tmp_path / "app.lock").write_text("")
    return Image("app", context, tmp_path / "app.lock")


def test_digest_follows_content_and_not_caches(image: Image) -> None:
    before = image.digest("base")
    (image.context / "package" / "__pycache__" / "main.pyc").write_text("2")
    assert image.digest("base") == before
    assert image.digest("other base") != before
    (image.context / "package" / "main.py").write_text("print(1)\n")
    changed = image.digest("base")
    assert changed != before
    image.lock.write_text("numpy==2.0\n")
    assert image.digest("base") != changed


def test_same_content_is_built_once(image: Image, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[str] = []

    def builder(context: Path, tag: str, archive: Path) -> None:
        assert (context / "requirements.lock").exists()
        assert (context / "wheels").is_dir()
        built.append(tag)
        archive.write_text(tag)

    wheels = cache / "wheels" / "app"
    wheels.mkdir(parents=True)
    monkeypatch.setattr(images, "wheels", lambda lock, python: wheels)
    assert images.archive(image, builder, "base") == images.archive(image, builder, "base")
    assert built == ["serinus-app:dev"]


def test_missing_containerfile_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="Containerfile"):
        Image("app", tmp_path, tmp_path / "app.lock").digest("base")


def test_wheels_for_debian_12() -> None:
    found = images.platforms("arm64")
    assert found[0] == "manylinux_2_36_aarch64"
    assert "manylinux_2_17_aarch64" in found
    assert "manylinux_2_39_aarch64" not in found


def test_scratch_image_is_reproducible_and_complete(tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"program")
    image = ScratchImage("serinus-x:dev", ["/usr/bin/x"], {"usr/bin/x": binary}, {"bin/x": "../usr/bin/x"})
    image.write(tmp_path / "a.tar")
    image.write(tmp_path / "b.tar")
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as archive:
        manifest = archive.extractfile("manifest.json")
        assert manifest is not None
        (entry,) = json.load(manifest)
        layer = archive.extractfile(entry["Layers"][0])
        with tarfile.open(fileobj=layer) as content:
            assert {"tmp", "usr", "usr/bin", "usr/bin/x", "bin", "bin/x"} == set(content.getnames())
            assert content.getmember("tmp").mode == 0o1777
    assert entry["RepoTags"] == ["serinus-x:dev"]
