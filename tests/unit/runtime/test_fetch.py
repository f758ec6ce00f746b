"""Fetching: every kind of source, hostile archives, servers that fail."""

from __future__ import annotations

import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from serinus_runtime import archives, digest
from serinus_runtime.config import Config
from serinus_runtime.failures import FailureError, Reason
from serinus_runtime.fetch import fetch, redacted

FILES = {"model.onnx": b"model" * 1000, "sub dir/ä#?%.txt": b"text", "empty": b""}


class Store(BaseHTTPRequestHandler):
    """Serves `files`; `faults` are taken first, one per request."""

    files: ClassVar[dict[str, bytes]] = {}
    faults: ClassVar[list[int | str]] = []
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        """One file."""
        from urllib.parse import unquote

        self.asked.append(self.path)
        fault = self.faults.pop(0) if self.faults else None
        content = self.files.get(unquote(self.path.partition("?")[0]))
        if fault == "drop":
            self.close_connection = True
            return
        if isinstance(fault, str) and fault.startswith("to:"):
            self.send_response(302)
            self.send_header("Location", fault[3:])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        status = fault if isinstance(fault, int) else 200 if content is not None else 404
        body = content if content is not None and status == 200 else b""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if fault == "half" else body)
        if fault == "half":
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""


@pytest.fixture
def store() -> Iterator[str]:
    """The base URL of a store whose files the test sets."""
    Store.files, Store.faults, Store.asked = {}, [], []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Store)
    server.block_on_close = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model directory with FILES."""
    for name, content in FILES.items():
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "source"


def _publish(model: Path, prefix: str = "/m/") -> None:
    for name in FILES:
        Store.files[prefix + name] = (model / name).read_bytes()
    Store.files[prefix + "SHA256SUMS"] = digest.manifest(model)


def _fetch(tmp_path: Path, uri: str, expected: str = "", **more: object) -> Path:
    target = tmp_path / "models" / "model"
    settings: dict[str, object] = {"model_uri": uri, "model_digest": expected, "model_dir": target, **more}
    pauses: list[float] = []
    found = fetch(Config(**settings), sleep=pauses.append)  # type: ignore[arg-type]
    assert found == digest.compute_digest(target)
    assert [path.name for path in target.parent.iterdir()] == ["model"]
    return target


def _failure(tmp_path: Path, uri: str, expected: str = "", **more: object) -> FailureError:
    with pytest.raises(FailureError) as caught:
        _fetch(tmp_path, uri, expected, **more)
    left = tmp_path / "models"
    assert not left.exists() or [path.name for path in left.iterdir()] in ([], ["model"])
    return caught.value


def test_a_directory(tmp_path: Path, model: Path) -> None:
    target = _fetch(tmp_path, model.as_uri(), digest.compute_digest(model))
    assert {name: (target / name).read_bytes() for name in FILES} == FILES


def test_a_directory_in_a_claim(tmp_path: Path, model: Path) -> None:
    pinned = digest.compute_digest(model)
    for uri, mounted in (("pvc://models/source", model.parent), ("pvc://models/", model), ("pvc://models", model)):
        archives.remove(_fetch(tmp_path, uri, pinned, claim_dir=mounted))
    assert "outside" in _failure(tmp_path, "pvc://models/../source", claim_dir=model).message
    assert "not mounted" in _failure(tmp_path, "pvc://models/x", claim_dir=tmp_path / "none").message


def test_a_directory_over_http(tmp_path: Path, model: Path, store: str) -> None:
    _publish(model)
    for uri in (f"{store}/m/", f"{store}/m"):
        target = _fetch(tmp_path, uri, digest.compute_digest(model))
        assert (target / "sub dir/ä#?%.txt").read_bytes() == b"text"
        archives.remove(target)


def test_nothing_is_done_when_the_model_is_there(tmp_path: Path, model: Path, store: str) -> None:
    _publish(model)
    pinned = digest.compute_digest(model)
    target = _fetch(tmp_path, f"{store}/m/", pinned)
    asked = len(Store.asked)
    _fetch(tmp_path, f"{store}/m/", pinned)
    assert len(Store.asked) == asked
    (target / "model.onnx").write_bytes(b"damaged")
    _fetch(tmp_path, f"{store}/m/", pinned)
    assert (target / "model.onnx").read_bytes() == FILES["model.onnx"]


def test_passing_troubles_are_survived(tmp_path: Path, model: Path, store: str) -> None:
    _publish(model)
    Store.faults = [503, "drop", 200, "half", 500, 429, "half"]
    _fetch(tmp_path, f"{store}/m/", digest.compute_digest(model))


def test_lasting_troubles_are_told(tmp_path: Path, model: Path, store: str) -> None:
    failure = _failure(tmp_path, f"{store}/absent/")
    assert failure.reason is Reason.FETCH_FAILED
    assert "answered 404" in failure.message
    assert len(Store.asked) == 1
    Store.faults = [500] * 100
    assert "answered 500 Internal Server Error (6 tries)" in _failure(tmp_path, f"{store}/m/").message
    failure = _failure(tmp_path, "http://user:secret@127.0.0.1:1/m.tar?token=secret")
    assert failure.reason is Reason.FETCH_FAILED
    assert "secret" not in failure.message


def test_another_model_than_the_pinned_one_is_refused_before_it_is_downloaded(
    tmp_path: Path, model: Path, store: str
) -> None:
    _publish(model)
    failure = _failure(tmp_path, f"{store}/m/", "sha256:" + "0" * 64)
    assert failure.reason is Reason.DIGEST_MISMATCH
    assert digest.compute_digest(model) in failure.message
    assert len(Store.asked) == 1
    assert _failure(tmp_path, model.as_uri(), "sha256:" + "0" * 64).reason is Reason.DIGEST_MISMATCH


def test_a_file_that_is_not_what_the_manifest_says(tmp_path: Path, model: Path, store: str) -> None:
    _publish(model)
    Store.files["/m/model.onnx"] = b"evil"
    failure = _failure(tmp_path, f"{store}/m/", digest.compute_digest(model))
    assert failure.reason is Reason.DIGEST_MISMATCH
    assert failure.message.startswith("model.onnx from ")


@pytest.mark.parametrize("line", ["../../evil", "/etc/passwd", "a/../../b", "..", "a\\..\\b", "", "x" * 64, "\x00"])
def test_manifests_that_lead_outside(tmp_path: Path, store: str, line: str) -> None:
    Store.files["/m/SHA256SUMS"] = f"{'0' * 64}  {line}\n".encode()
    Store.files["/m/" + line] = b"evil"
    failure = _failure(tmp_path, f"{store}/m/")
    assert failure.reason is (Reason.DIGEST_MISMATCH if line == "x" * 64 else Reason.FETCH_FAILED)
    assert not (tmp_path / "evil").exists()


def test_redirects(tmp_path: Path, model: Path, store: str) -> None:
    _publish(model)
    Store.faults = [f"to:{store}/m/SHA256SUMS?signed=1"]
    _fetch(tmp_path, f"{store}/m/", digest.compute_digest(model))
    archives.remove(tmp_path / "models")
    Store.faults = [f"to:file://{model}/model.onnx"]
    assert "is not allowed" in _failure(tmp_path, f"{store}/m/").message


def test_bounds(tmp_path: Path, model: Path, store: str) -> None:
    _publish(model)
    for uri in (f"{store}/m/", model.as_uri()):
        assert "more than 4999 bytes" in _failure(tmp_path, uri, max_model_bytes=4999).message


def test_links_are_refused(tmp_path: Path, model: Path) -> None:
    (model / "link").symlink_to("/etc/passwd")
    assert "links are refused" in _failure(tmp_path, model.as_uri()).message


@pytest.mark.parametrize("uri", ["s3://a/b", "ftp://a/b", "model", "file://host/dir", "http:///x", "pvc:///x"])
def test_uris_that_are_not_understood(tmp_path: Path, uri: str) -> None:
    assert "write one of file:///dir" in _failure(tmp_path, uri).message


def _tar(path: Path, members: list[tuple[str, bytes | str]], mode: str = "gz") -> Path:
    with tarfile.open(path, f"w:{mode}") as tar:  # type: ignore[call-overload]
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = (tarfile.SYMTYPE if content[0] == "s" else tarfile.LNKTYPE), content[1:]
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def _zip(path: Path, members: list[tuple[str, bytes]], attributes: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = attributes
            packed.writestr(info, content, zipfile.ZIP_DEFLATED)
    return path


@pytest.mark.parametrize("prefix", ["", "./", "top/"])
@pytest.mark.parametrize("suffix", [".tar.gz", ".tgz", ".tar", ".zip"])
def test_archives(tmp_path: Path, model: Path, store: str, suffix: str, prefix: str) -> None:
    members = [(prefix + name, content) for name, content in FILES.items()]
    packed = tmp_path / f"m{suffix}"
    if suffix == ".zip":
        _zip(packed, members)
    else:
        _tar(packed, list(members), "" if suffix == ".tar" else "gz")
    Store.files[f"/m{suffix}"] = packed.read_bytes()
    Store.faults = ["half", 502]
    target = _fetch(tmp_path, f"{store}/m{suffix}?token=1", digest.compute_digest(model))
    assert {name: (target / name).read_bytes() for name in FILES} == FILES
    archives.remove(target)
    _fetch(tmp_path, packed.as_uri(), digest.compute_digest(model))


@pytest.mark.parametrize(
    "members",
    [
        [("../evil", b"x")],
        [("a/../../evil", b"x")],
        [("/tmp/evil", b"x")],
        [("a\\..\\evil", b"x")],
        [("link", "s/etc"), ("link/evil", b"x")],
        [("link", "s..")],
        [("a", b"x"), ("hard", "h/etc/passwd")],
        [("a", b"x"), ("a", b"y")],
        [("a", b"x"), ("a/b", b"y")],
        [("zeros", bytes(10_000_000))],
        [(f"f{n}", b"") for n in range(10_001)],
    ],
)
def test_hostile_tars(tmp_path: Path, members: list[tuple[str, bytes | str]]) -> None:
    packed = _tar(tmp_path / "m.tgz", members)
    with pytest.raises(archives.ArchiveError):
        archives.unpack(packed, tmp_path / "deep" / "er" / "out", 1_000_000)
    assert not list(tmp_path.glob("**/evil"))


def test_hostile_zips(tmp_path: Path) -> None:
    bad = [
        _zip(tmp_path / "up.zip", [("../evil", b"x")]),
        _zip(tmp_path / "link.zip", [("link", b"/etc")], 0o120777 << 16),
        _zip(tmp_path / "bomb.zip", [("zeros", bytes(50_000_000))]),
    ]
    for packed in bad:
        with pytest.raises(archives.ArchiveError):
            archives.unpack(packed, tmp_path / "out" / packed.stem, 1_000_000)
    assert not list(tmp_path.glob("**/evil"))


def test_damaged_archives(tmp_path: Path) -> None:
    whole = _tar(tmp_path / "m.tgz", [("model.onnx", bytes(range(256)) * 1000)]).read_bytes()
    for number, content in enumerate((b"", b"nonsense", whole[: len(whole) // 2], whole[:40] + b"xx" + whole[42:])):
        (tmp_path / "bad.tgz").write_bytes(content)
        with pytest.raises(archives.ArchiveError):
            archives.unpack(tmp_path / "bad.tgz", tmp_path / f"out{number}", 1_000_000)


def test_addresses_in_logs_hold_no_secrets() -> None:
    assert redacted("https://u:p@host:1/a?sig=s#f") == "https://host:1/a"
