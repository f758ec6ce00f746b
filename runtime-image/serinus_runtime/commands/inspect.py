"""`serinus-runtime inspect`: what a model directory holds, and what will trouble whoever serves it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from serinus_runtime import examples, modelmanifest
from serinus_runtime.about import About, has_rows
from serinus_runtime.commands import onnxfile
from serinus_runtime.commands.model import opened
from serinus_runtime.commands.onnxfile import NotOnnxError, OnnxFile
from serinus_runtime.commands.pack import reference_hash
from serinus_runtime.commands.tell import Format, bytes_text, table
from serinus_runtime.datatypes import NUMPY
from serinus_runtime.digest import UnsafeDirectoryError, compute_digest
from serinus_runtime.drift import reference
from serinus_runtime.drift.columns import input_places
from serinus_runtime.engine import Signature, TensorSpec
from serinus_runtime.engine.registry import choose
from serinus_runtime.failures import FailureError, Reason
from serinus_runtime.modelmanifest import Manifest
from serinus_runtime.predictionlog import preprocessing_hash

_OLD_OPSET = 13


class Found(msgspec.Struct, omit_defaults=True):
    """What `inspect` tells; also its JSON."""

    directory: str
    digest: str
    files: int
    bytes: int
    engine: str
    runtime: str
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    batched: bool
    columns: list[str]
    rule: dict[str, Any] | None = None
    reference: dict[str, int] | None = None
    warmup: dict[str, str | int] | None = None
    manifest: Manifest | None = None
    onnx: OnnxFile | None = None
    providers: list[str] = []
    failure: str = ""
    warnings: list[str] = []


def inspect(directory: Path) -> Found:
    """Everything about the model in `directory`. A model that cannot be loaded has `failure`.

    Raises FailureError when the directory cannot be read at all.
    """
    try:
        digest = compute_digest(directory)
        sizes = [path.stat().st_size for path in directory.rglob("*") if path.is_file()]
    except (OSError, UnsafeDirectoryError) as error:
        raise FailureError(Reason.INVALID_CONFIG, f"cannot read {directory}: {error}") from error
    found = Found(str(directory), digest, len(sizes), sum(sizes), choose(directory, "auto"), "", [], [], False, [])
    if (path := directory / "model.onnx").is_file():
        try:
            found.onnx = onnxfile.read(path)
        except (OSError, NotOnnxError) as error:
            found.failure = f"{path}: {error}"
        found.providers = _providers()
    signature = None
    try:
        with opened(directory) as model:
            signature = model.signature
            found.runtime = model.engine.runtime
            found.inputs, found.outputs = list(model.signature.inputs), list(model.signature.outputs)
            found.batched = model.signature.batched
            found.columns = [place.name for place in input_places(model.signature, model.about)]
            if (rule := model.about.rule) is not None:
                found.rule = {"output": rule.output, "column": rule.column, "thresholds": dict(rule.steps),
                              "otherwise": rule.otherwise}  # fmt: skip
            if (shipped := model.examples) is not None:
                found.warmup = {"file": shipped.file, "rows": shipped.rows}
            found.warnings += _of_signature(model.engine.signature, model.signature, model.about)
    except FailureError as failure:
        found.failure = failure.message
    found.warnings += [*_of_graph(directory, found.onnx), *_of_warm_up(directory)]
    try:
        if (known := reference.read(directory)) is not None:
            found.reference = {
                "rows": known.rows, "inputs": len(known.inputs), "outputs": len(known.outputs)
            }  # fmt: skip
        else:
            found.warnings.append("no reference.json: drift will not be told; see `serinus-runtime reference`")
    except (OSError, ValueError) as error:
        found.warnings.append(f"{reference.FILE} cannot be used: {error}")
    _compare(found, directory, signature)
    return found


def run(arguments: argparse.Namespace) -> int:
    """Shows what was found; 66 when the model cannot be loaded."""
    found = inspect(arguments.directory)
    if arguments.output is Format.JSON:
        print(msgspec.json.encode(found).decode())
    else:
        print(_shown(found))
    return Reason.MODEL_LOAD_FAILED.exit_code if found.failure else 0


def _providers() -> list[str]:
    import onnxruntime

    names: list[str] = onnxruntime.get_available_providers()
    return names


def _compare(found: Found, directory: Path, signature: Signature | None) -> None:
    """Tells of manifest.json, and of where the directory no longer fits it; `signature` if the model was opened."""
    try:
        found.manifest = known = modelmanifest.read(directory)
        texts = [] if known is None else modelmanifest.misfits(
            known, signature=signature, preprocessing=preprocessing_hash(directory), reference=reference_hash(directory)
        )  # fmt: skip
        found.warnings += [f"{modelmanifest.FILE} no longer fits: {text}; pack the directory again" for text in texts]
    except (OSError, ValueError) as error:
        found.warnings.append(f"{modelmanifest.FILE} cannot be used: {error}")


def _of_signature(declared: Signature, signature: Signature, about: About) -> Iterator[str]:
    if not signature.batched:
        if declared.batched:
            yield "outputs do not follow the rows of the inputs: requests are run one at a time"
        else:
            yield "axis 0 is not open everywhere: requests are run one at a time; export it with a dynamic batch axis"
    if not has_rows(signature):
        yield "the model does not work in rows: /predict and /v1 refuse it, and drift is not told"
    for spec in signature.inputs:
        width = spec.shape[1] if len(spec.shape) == 2 else 1
        if width != 1 and spec.name not in about.columns and NUMPY[spec.datatype].kind != "O":
            count = width if width > 0 else "open number of"
            yield f"the {count} elements of input {spec.name!r} have no names: list them as features in model.json"


def _of_graph(directory: Path, model: OnnxFile | None) -> Iterator[str]:
    if model is None:
        return
    if "ZipMap" in model.operators:
        yield "the graph ends in ZipMap: no protocol carries its output; export with options={'zipmap': False}"
    if 0 < model.opsets.get("ai.onnx", 0) < _OLD_OPSET:
        yield f"operator set {model.opsets['ai.onnx']} is old; export with {_OLD_OPSET} or newer"
    root = directory.resolve()
    for name in model.external:
        target = (directory / name).resolve()
        if not target.is_relative_to(root):
            yield f"weights lie outside the directory ({name!r}): the digest does not cover them"
        elif not target.is_file():
            yield f"weights are missing: {name!r}"


def _of_warm_up(directory: Path) -> Iterator[str]:
    code = sorted(path.name for path in directory.glob("*.py"))
    if code and not any((directory / name).is_file() for name in examples.FILES):
        yield f"warm-up gives {code[0]} zeros and empty strings, which it may refuse: {examples.HOW}"


def _shape(spec: TensorSpec) -> str:
    return "[" + ", ".join("?" if size == -1 else str(size) for size in spec.shape) + "]"


def _shown(found: Found) -> str:
    facts = [("directory", found.directory), ("digest", found.digest),
             ("size", f"{bytes_text(found.bytes)} in {found.files} files"),
             ("engine", f"{found.engine} ({found.runtime})" if found.runtime else found.engine)]  # fmt: skip
    if found.manifest is not None:
        version = f"version {found.manifest.version}" if found.manifest.version else "no version"
        facts.append(("manifest", f"{version}, packed with {found.manifest.runtime}"))
    if (model := found.onnx) is not None:
        opsets = ", ".join(f"{domain} {version}" for domain, version in model.opsets.items())
        common = ", ".join(f"{count} {name}" for name, count in list(model.operators.items())[:6])
        facts += [
            ("ONNX", f"IR {model.ir_version}, {opsets}" + (f", by {model.producer}" if model.producer else "")),
            ("graph", f"{model.nodes} nodes: {common}{', ...' if len(model.operators) > 6 else ''}"),
            ("providers", ", ".join(name.removesuffix("ExecutionProvider") for name in found.providers)),
        ]
        if model.external:
            facts.append(("external", ", ".join(model.external)))
    if found.inputs:
        facts.append(("batching", "rows of requests are joined" if found.batched else "one request at a time"))
    if found.columns:
        shown = ", ".join(found.columns[:12]) + (
            f" and {len(found.columns) - 12} more" if len(found.columns) > 12 else ""
        )
        facts.append(("columns", shown))
    if found.rule is not None:
        steps = ", ".join(f">= {limit:g} {name}" for name, limit in found.rule["thresholds"].items())
        facts.append(("decision", f"{found.rule['output']}: {steps}, else {found.rule['otherwise']}"))
    if found.reference is not None:
        facts.append(("reference", f"{found.reference['rows']} rows"))
    if found.warmup is not None:
        facts.append(("warm-up", f"{found.warmup['rows']} rows of {found.warmup['file']}"))
    parts = [table(("", ""), facts)]
    if found.inputs:
        tensors = [
            (kind, spec.name, spec.datatype, _shape(spec))
            for kind, specs in (("input", found.inputs), ("output", found.outputs))
            for spec in specs
        ]
        parts.append(table(("", "name", "datatype", "shape"), tensors))
    if found.failure:
        parts.append(f"cannot be served: {found.failure}")
    parts += ["\n".join(f"warning: {text}" for text in found.warnings)] if found.warnings else []
    return "\n\n".join(parts)
