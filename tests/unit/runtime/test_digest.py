"""The digest against coreutils, and what it refuses."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from serinus_runtime import digest
from serinus_runtime.failures import FailureError, Reason

_COREUTILS = "find . -type f ! -name SHA256SUMS -printf '%P\\n' | LC_ALL=C sort | xargs -r -d '\\n' sha256sum --"
_NAMES = st.text(st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="/"), min_size=1, max_size=12)
_FILES = st.dictionaries(
    _NAMES.filter(lambda name: name not in (".", "..", "SHA256SUMS")), st.binary(max_size=50), max_size=6
)


def _coreutils(directory: Path) -> bytes:
    return subprocess.run(["bash", "-c", _COREUTILS], cwd=directory, check=True, capture_output=True).stdout


@settings(max_examples=40, deadline=None)
@given(_FILES, _FILES)
@example(top={"-": b"0"}, below={"-": b"1"})
def test_manifest_is_what_coreutils_print(top: dict[str, bytes], below: dict[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name) / "m"
        (directory / "sub dir").mkdir(parents=True)
        for at, files in ((directory, top), (directory / "sub dir", below)):
            for file, content in files.items():
                if not (at / file).is_dir():
                    (at / file).write_bytes(content)
        if "-" in top:
            with pytest.raises(digest.UnsafeDirectoryError, match="standard input"):
                digest.manifest(directory)
            (directory / "-").unlink()
        expected = _coreutils(directory)
        assert digest.manifest(directory) == expected
        (directory / "SHA256SUMS").write_bytes(expected)
        assert digest.manifest(directory) == expected


def test_digest_changes_with_content_names_and_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    seen = {digest.compute_digest(tmp_path)}
    (tmp_path / "a").write_bytes(b"2")
    seen.add(digest.compute_digest(tmp_path))
    (tmp_path / "a").rename(tmp_path / "b")
    seen.add(digest.compute_digest(tmp_path))
    (tmp_path / "c").touch()
    seen.add(digest.compute_digest(tmp_path))
    assert len(seen) == 4


def test_links_and_devices_are_refused(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "link").symlink_to("/etc/passwd")
    with pytest.raises(digest.UnsafeDirectoryError, match=r"'link' is not a regular file"):
        digest.manifest(tmp_path / "m")
    (tmp_path / "m" / "link").unlink()
    os.mkfifo(tmp_path / "m" / "pipe")
    with pytest.raises(digest.UnsafeDirectoryError, match="'pipe'"):
        digest.manifest(tmp_path / "m")


def test_what_the_digest_would_not_cover_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "SHA256SUMS").touch()
    with pytest.raises(digest.UnsafeDirectoryError, match="below the top"):
        digest.manifest(tmp_path)
    (tmp_path / "sub" / "SHA256SUMS").rename(tmp_path / "sub" / "a\nb")
    with pytest.raises(digest.UnsafeDirectoryError, match="control character"):
        digest.manifest(tmp_path)


def test_verify(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"x")
    found = digest.verify(tmp_path, "")
    assert digest.verify(tmp_path, found) == found
    with pytest.raises(FailureError) as caught:
        digest.verify(tmp_path, "sha256:" + "0" * 64)
    assert caught.value.reason is Reason.DIGEST_MISMATCH
    assert found in caught.value.message
    with pytest.raises(FailureError, match="does not exist") as caught:
        digest.verify(tmp_path / "absent", "")
    assert caught.value.reason is Reason.MODEL_LOAD_FAILED
