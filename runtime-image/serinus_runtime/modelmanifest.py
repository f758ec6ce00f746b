"""`manifest.json` in a packed model: its version and signature, and what it was packed with.

`serinus-runtime pack` writes it into the archive, so the model's digest covers it. `inspect` compares the directory
with it, `serve` the signature. It is a description: whatever is wrong with it never keeps a model from being served.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from serinus_runtime import logs
from serinus_runtime.config import version_name
from serinus_runtime.engine import Signature, TensorSpec

FILE = "manifest.json"
_KIND = "serinus-model-manifest/"
FORMAT = f"{_KIND}1"
"""What tells the file from others of its name, which many programs write."""
MAX_BYTES = 8 << 20
_MAX_TOLD = 5
_MAX_TEXT = 1000


class SignatureOf(msgspec.Struct, frozen=True):
    """Inputs and outputs in the model's order, as the protocol's metadata shows them."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class Manifest(msgspec.Struct, frozen=True, omit_defaults=True):
    """The file. What is not known is left out."""

    format: str
    runtime: str
    """This package and the engine, as the prediction log names them; without the engine where it did not open."""
    version: str = ""
    preprocessing: str = ""
    """The prediction log's `preprocessing`."""
    reference: str = ""
    """`sha256:` and hex of reference.json."""
    signature: SignatureOf | None = None


def encode(manifest: Manifest) -> bytes:
    """The file's bytes: the same for the same manifest."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"


def decode(data: bytes) -> Manifest | None:
    """What `encode` wrote; None for a JSON file of another kind. Raises ValueError that says what is wrong."""
    kind = _kind(data)
    if not kind.startswith(_KIND):
        return None
    if kind != FORMAT:
        raise ValueError(f"its format is {kind[:80]!r}; this version understands {FORMAT!r}")
    manifest = msgspec.json.decode(data, type=Manifest)
    version_name(manifest.version)
    known = manifest.signature or SignatureOf((), ())
    if not all(
        text.isprintable() for text in (manifest.runtime, *(spec.datatype for spec in (*known.inputs, *known.outputs)))
    ):
        raise ValueError("there are control characters in it")
    return manifest


def read(directory: Path) -> Manifest | None:
    """The manifest of a model directory; None when it has none. Raises ValueError or OSError when it is no good."""
    path = directory / FILE
    if not path.is_file():
        return None
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"it is larger than {MAX_BYTES} bytes")
    return decode(path.read_bytes())


def of_another(directory: Path) -> bool:
    """True when the directory holds something of this name that `pack` did not write. Raises OSError."""
    path = directory / FILE
    if not path.exists():
        return False
    if not path.is_file() or path.stat().st_size > MAX_BYTES:
        return True
    try:
        return not _kind(path.read_bytes()).startswith(_KIND)
    except ValueError:
        return True


def misfits(
    manifest: Manifest,
    *,
    signature: Signature | None = None,
    preprocessing: str | None = None,
    reference: str | None = None,
) -> list[str]:
    """Where a model is not what `manifest` says, one text each; None is not compared, nor a signature left out."""
    found = []
    if signature is not None and manifest.signature is not None:
        parts = [
            *_of_side("input", manifest.signature.inputs, signature.inputs),
            *_of_side("output", manifest.signature.outputs, signature.outputs),
        ]
        if len(parts) > _MAX_TOLD:
            parts[_MAX_TOLD:] = [f"and {len(parts) - _MAX_TOLD} more"]
        found += [f"the signature differs: {'; '.join(parts)}"] if parts else []
    for what, known, now in (
        ("preprocessing hash", manifest.preprocessing, preprocessing),
        ("hash of reference.json", manifest.reference, reference),
    ):
        if now is not None and now != known:
            found.append(f"the {what} is {_or_none(now)}, and was {_or_none(known)}")
    return [text[:_MAX_TEXT] for text in found]


def tell_misfits(directory: Path, signature: Signature) -> None:
    """Warns in the log when the model that is served has another signature than the one that was packed."""
    try:
        manifest = read(directory)
    except (OSError, ValueError) as error:
        logs.event("warning", f"{FILE} cannot be used and is ignored", why=str(error)[:300])
        return
    if manifest is not None and (found := misfits(manifest, signature=signature)):
        logs.event("warning", f"the model is not the one that {FILE} describes", why=found[0])


def _kind(data: bytes) -> str:
    """`format` of a JSON object; empty for other JSON. Raises ValueError for what is no JSON."""
    try:
        told = msgspec.json.decode(data)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    kind = told.get("format") if isinstance(told, dict) else None
    return kind if isinstance(kind, str) else ""


def _of_side(kind: str, known: tuple[TensorSpec, ...], now: tuple[TensorSpec, ...]) -> Iterator[str]:
    before, after = {spec.name: spec for spec in known}, {spec.name: spec for spec in now}
    for name, spec in before.items():
        if name not in after:
            yield f"{kind} {name!r} {_text(spec)} is gone"
        elif after[name] != spec:
            yield f"{kind} {name!r} is {_text(after[name])}, and was {_text(spec)}"
    for name, spec in after.items():
        if name not in before:
            yield f"{kind} {name!r} {_text(spec)} is new"
    if set(before) == set(after) and [spec.name for spec in known] != [spec.name for spec in now]:
        yield f"{kind}s come in another order"


def _text(spec: TensorSpec) -> str:
    return f"{spec.datatype} {list(spec.shape)}"


def _or_none(text: str) -> str:
    return repr(text) if text else "none"
