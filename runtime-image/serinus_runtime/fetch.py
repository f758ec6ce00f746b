"""Brings a model into its directory: downloaded beside it, verified, then renamed into place."""

from __future__ import annotations

import hashlib
import http.client
import os
import random
import re
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from email.message import Message
from pathlib import Path
from typing import IO, TypeVar

from serinus_runtime import archives, logs
from serinus_runtime.config import Config
from serinus_runtime.digest import (
    MANIFEST,
    UnsafeDirectoryError,
    compute_digest,
    digest_of_manifest,
    mismatch,
    verify,
)
from serinus_runtime.failures import FailureError, Reason

_T = TypeVar("_T")
_MAX_MANIFEST = 16 << 20
_READ_SECONDS = 30.0
_TRIES = 6
_FIRST_PAUSE = 0.25
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")
_SCHEMES = "file:///dir, pvc://claim/path, http(s)://host/dir/, http(s)://host/model.tar.gz"


class _RetryableError(Exception):
    """Trying again may help."""


class _FetchError(Exception):
    """Trying again does not help."""


def fetch(
    config: Config, *, sleep: Callable[[float], None] = time.sleep, now: Callable[[], float] = time.monotonic
) -> str:
    """Makes sure that `config.model_dir` holds the model of `config.model_uri`; returns its digest.

    Does nothing when the directory is there and has the pinned digest. Raises FailureError.
    """
    target = config.model_dir
    if config.model_digest and target.is_dir():
        try:
            if compute_digest(target) == config.model_digest:
                logs.event("info", "the model is already there", dir=str(target), digest=config.model_digest)
                return config.model_digest
        except (OSError, UnsafeDirectoryError):
            pass
    source = _Source(config, sleep, now)
    shown = redacted(config.model_uri)
    started = now()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as work:
            found = source.download(Path(work))
            digest = _verified(found, config.model_digest, shown)
            _replace(found, target, Path(work))
    except (_FetchError, archives.ArchiveError, OSError) as error:
        raise FailureError(Reason.FETCH_FAILED, f"cannot fetch the model from {shown}: {error}") from error
    logs.event("info", "model fetched", uri=shown, digest=digest, seconds=round(now() - started, 3))
    return digest


def redacted(uri: str) -> str:
    """`uri` without user, password, query and fragment: fit for logs."""
    parts = urllib.parse.urlsplit(uri)
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _verified(directory: Path, expected: str, shown: str) -> str:
    try:
        return verify(directory, expected)
    except FailureError as failure:
        if failure.reason is Reason.DIGEST_MISMATCH:
            raise mismatch(expected, compute_digest(directory), shown) from None
        raise _FetchError(failure.message) from failure


def _replace(found: Path, target: Path, work: Path) -> None:
    found.chmod(0o755)
    if target.is_symlink() or target.exists():
        target.rename(work / "replaced")
    found.rename(target)


class _Source:
    def __init__(self, config: Config, sleep: Callable[[float], None], now: Callable[[], float]) -> None:
        self._uri = config.model_uri
        self._digest = config.model_digest
        self._max_bytes = config.max_model_bytes
        self._claim_dir = config.claim_dir
        self._sleep = sleep
        self._now = now
        self._deadline = now() + config.fetch_timeout
        self._opener = urllib.request.build_opener(_HttpRedirects)

    def download(self, work: Path) -> Path:
        """The model as a new directory below `work`."""
        parts = urllib.parse.urlsplit(self._uri)
        into = work / "model"
        if parts.scheme == "file" and parts.netloc in ("", "localhost"):
            self._copy(Path(urllib.parse.unquote(parts.path)), into)
        elif parts.scheme == "pvc" and parts.netloc:
            self._copy(self._in_claim(urllib.parse.unquote(parts.path)), into)
        elif parts.scheme in ("http", "https") and parts.netloc:
            if archives.is_archive(parts.path):
                packed = work / "archive"
                self._retrying(self._uri, lambda: self._save(self._uri, packed, archives.Budget(self._max_bytes)))
                archives.unpack(packed, into, self._max_bytes)
                packed.unlink()
            else:
                self._directory(into)
        else:
            raise _FetchError(f"this URI is not understood; write one of {_SCHEMES}")
        return archives.flatten(into)

    def _in_claim(self, path: str) -> Path:
        below = path.strip("/")
        if not self._claim_dir.is_dir():
            raise _FetchError(f"the claim is not mounted at {self._claim_dir} (SERINUS_CLAIM_DIR)")
        return self._claim_dir / archives.relative_path(below) if below else self._claim_dir

    def _copy(self, source: Path, into: Path) -> None:
        if not source.is_dir():
            if source.is_file() and archives.is_archive(source.name):
                archives.unpack(source, into, self._max_bytes)
                return
            raise _FetchError(f"{source} is not a directory")
        budget = archives.Budget(self._max_bytes)

        def fail(error: OSError) -> None:
            raise error

        for folder, _, names in os.walk(source, onerror=fail):
            below = into / Path(folder).relative_to(source)
            below.mkdir(parents=True)
            for name in names:
                path = Path(folder) / name
                if path.is_symlink() or not path.is_file():
                    raise _FetchError(f"{path} is not a regular file (links are refused); put the file itself there")
                budget.file()
                with path.open("rb", buffering=0) as file, (below / name).open("xb") as out:
                    archives.copy(file.read, out, budget.take)

    def _directory(self, into: Path) -> None:
        base = self._uri if urllib.parse.urlsplit(self._uri).path.endswith("/") else _with_slash(self._uri)
        text = self._retrying(MANIFEST, lambda: self._read(_below(base, MANIFEST), _MAX_MANIFEST))
        if self._digest and digest_of_manifest(text) != self._digest:
            raise mismatch(self._digest, digest_of_manifest(text), f"{redacted(base)} (its {MANIFEST})")
        into.mkdir()
        budget = archives.Budget(self._max_bytes)
        for line in text.decode("utf-8", "replace").splitlines():
            found = _LINE.fullmatch(line)
            if found is None:
                raise _FetchError(f"its {MANIFEST} has the line {line[:200]!r}; expected what sha256sum prints")
            expected, name = found[1], found[2]
            target = into / archives.relative_path(name)
            budget.file()
            target.parent.mkdir(parents=True, exist_ok=True)
            got = self._retrying(name, lambda: self._save(_below(base, name), target, budget))  # noqa: B023
            if got != expected:
                raise FailureError(
                    Reason.DIGEST_MISMATCH,
                    f"{name} from {redacted(base)} is not what its {MANIFEST} says: expected sha256 {expected}, got "
                    f"{got}; upload the file again",
                )
        if not any(into.iterdir()):
            raise _FetchError(f"its {MANIFEST} lists no files")

    def _retrying(self, what: str, attempt: Callable[[], _T]) -> _T:
        pause = _FIRST_PAUSE
        for tries in range(1, _TRIES + 1):
            try:
                return attempt()
            except _RetryableError as error:
                wait = pause * (0.5 + random.random())  # noqa: S311
                if tries == _TRIES or self._now() + wait > self._deadline:
                    raise _FetchError(f"{error} ({tries} tries)") from error
                logs.event(
                    "warning", "a download failed, trying again", what=redacted(what), error=str(error), wait=wait
                )
                self._sleep(wait)
                pause = min(pause * 2, 8.0)
        raise AssertionError

    def _open(self, url: str) -> http.client.HTTPResponse:
        # Only http and https come here, and only they are followed to.
        request = urllib.request.Request(  # noqa: S310
            url, headers={"User-Agent": "serinus-runtime", "Accept-Encoding": "identity"}
        )
        try:
            answer: http.client.HTTPResponse = self._opener.open(request, timeout=_READ_SECONDS)
        except urllib.error.HTTPError as error:
            error.close()
            kind = _RetryableError if error.code >= 500 or error.code in (408, 429) else _FetchError
            raise kind(f"{redacted(url)} answered {error.code} {error.reason}") from error
        except (OSError, http.client.HTTPException) as error:
            raise _RetryableError(f"{redacted(url)}: {getattr(error, 'reason', error)}") from error
        return answer

    def _read(self, url: str, limit: int) -> bytes:
        with self._open(url) as answer:
            text = _reading(url, answer, limit + 1)
        if len(text) > limit:
            raise _FetchError(f"{redacted(url)} is larger than {limit} bytes")
        return text

    def _save(self, url: str, target: Path, budget: archives.Budget) -> str:
        sha = hashlib.sha256()
        got = 0
        with self._open(url) as answer, target.open("wb") as file:
            length = answer.length

            def read(size: int) -> bytes:
                nonlocal got
                if self._now() > self._deadline:
                    raise _FetchError("it took longer than SERINUS_FETCH_TIMEOUT")
                chunk = _reading(url, answer, size)
                if not chunk and length is not None and got != length:
                    raise _RetryableError(f"{redacted(url)} ended after {got} of {length} bytes")
                got += len(chunk)
                sha.update(chunk)
                return chunk

            try:
                archives.copy(read, file, budget.take)
            except _RetryableError:
                budget.take(-got)
                raise
        return sha.hexdigest()


class _HttpRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        before, after = urllib.parse.urlsplit(req.full_url).scheme, urllib.parse.urlsplit(newurl).scheme
        if after not in ("http", "https") or (before == "https" and after == "http"):
            raise _FetchError(f"{redacted(req.full_url)} redirects to {redacted(newurl)}, which is less safe")
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def _reading(url: str, answer: http.client.HTTPResponse, size: int) -> bytes:
    try:
        return answer.read(size)
    except (OSError, http.client.HTTPException) as error:
        raise _RetryableError(f"{redacted(url)} broke off: {error}") from error


def _with_slash(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit(parts._replace(path=parts.path + "/"))


def _below(base: str, name: str) -> str:
    parts = urllib.parse.urlsplit(base)
    return urllib.parse.urlunsplit(parts._replace(path=parts.path + urllib.parse.quote(name)))
