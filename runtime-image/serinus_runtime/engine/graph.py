"""What `pipeline.json` says, checked: an acyclic graph of steps. Pure: nothing is loaded here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from serinus_runtime.datatypes import FLOATS, NUMPY
from serinus_runtime.engine.base import Signature, TensorSpec

REQUEST = "request"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}", re.ASCII)
_MAX_STEPS = 64
COMBINATIONS = ("mean", "weighted", "vote")


class PipelineError(ValueError):
    """The pipeline cannot work; the text says which step, why, and what to write."""


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Turns a score into the name of the highest threshold that it reaches."""

    thresholds: dict[str, float]
    column: int | None = None
    otherwise: str = "allow"


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One step; exactly one of `onnx`, `python`, `combine` and `rule` says what it does."""

    name: str
    inputs: dict[str, str] | tuple[str, ...]
    """Its inputs and where they come from, `request.NAME` or `STEP.OUTPUT`; a list where the names do not matter."""
    onnx: str | None = None
    python: str | None = None
    function: str = "run"
    outputs: tuple[TensorSpec, ...] = ()
    """What a Python function gives."""
    combine: str | None = None
    weights: tuple[float, ...] = ()
    rule: Rule | None = None

    @property
    def kind(self) -> str:
        """What it is."""
        return next(kind for kind in ("onnx", "python", "combine", "rule") if getattr(self, kind) is not None)

    @property
    def sources(self) -> tuple[str, ...]:
        """Where its inputs come from."""
        return tuple(self.inputs.values()) if isinstance(self.inputs, dict) else self.inputs


class Pipeline(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    steps: tuple[Step, ...]
    outputs: dict[str, str]
    """The names in answers, and where they come from."""
    inputs: tuple[TensorSpec, ...] = ()
    """What requests hold, where the ONNX steps that take it do not say."""


def read(text: bytes) -> Pipeline:
    """The pipeline in `text`, with its graph checked. Raises PipelineError."""
    try:
        pipeline = msgspec.json.decode(text, type=Pipeline)
    except (msgspec.DecodeError, RecursionError) as error:
        raise PipelineError(f"it is not understood: {error}") from None
    if not 0 < len(pipeline.steps) <= _MAX_STEPS or not pipeline.outputs:
        raise PipelineError(f"it needs from 1 to {_MAX_STEPS} steps, and outputs")
    names = [step.name for step in pipeline.steps]
    for name in names:
        if _NAME.fullmatch(name) is None or name == REQUEST or names.count(name) > 1:
            raise PipelineError(f"step {name!r}: the name must be a word of its own, other than {REQUEST!r}")
    for step in pipeline.steps:
        _check_step(step)
    for spec in (*pipeline.inputs, *(spec for step in pipeline.steps for spec in step.outputs)):
        if spec.datatype not in NUMPY:
            raise PipelineError(f"{spec.name!r}: there is no datatype {spec.datatype!r}; there are {', '.join(NUMPY)}")
    for where, source in _references(pipeline):
        step_name, dot, output = source.partition(".")
        if not dot or not output or (step_name != REQUEST and step_name not in names):
            raise PipelineError(
                f"{where}: {source!r} is neither {REQUEST}.NAME nor STEP.OUTPUT; the steps are {', '.join(names)}"
            )
    levels(pipeline)
    _check_used(pipeline)
    return pipeline


def _check_step(step: Step) -> None:
    kinds = [kind for kind in ("onnx", "python", "combine", "rule") if getattr(step, kind) is not None]
    if len(kinds) != 1:
        raise PipelineError(f"step {step.name!r}: say one of onnx, python, combine and rule, not {len(kinds)} of them")
    if not step.inputs:
        raise PipelineError(f"step {step.name!r} has no inputs")
    if isinstance(step.inputs, tuple) != (step.kind in ("combine", "rule")):
        raise PipelineError(
            f"step {step.name!r}: the inputs of {step.kind} are a "
            + ("list of sources" if step.kind in ("combine", "rule") else "an object of input to source")
        )
    if step.kind == "python" and not step.outputs:
        raise PipelineError(f"step {step.name!r}: say in outputs what the function gives: name, datatype and shape")
    if step.kind == "rule" and len(step.inputs) != 1:
        raise PipelineError(f"step {step.name!r}: a rule has one input, the score")
    if step.combine is not None:
        if step.combine not in COMBINATIONS:
            raise PipelineError(f"step {step.name!r}: combine is one of {', '.join(COMBINATIONS)}")
        if (step.combine == "weighted") != bool(step.weights) or len(step.weights) not in (0, len(step.inputs)):
            raise PipelineError(f"step {step.name!r}: give a weight for each input with weighted, and only there")
        if step.weights and (min(step.weights) < 0 or not sum(step.weights) > 0):
            raise PipelineError(f"step {step.name!r}: weights are not below 0, and not all 0")


def _references(pipeline: Pipeline) -> Iterator[tuple[str, str]]:
    for step in pipeline.steps:
        for source in step.sources:
            yield f"step {step.name!r}", source
    for name, source in pipeline.outputs.items():
        yield f"output {name!r}", source


def levels(pipeline: Pipeline) -> list[list[Step]]:
    """The steps in the order of running; those of one level do not depend on each other. Raises PipelineError."""
    left = {step.name: step for step in pipeline.steps}
    needs = {step.name: {source.partition(".")[0] for source in step.sources} - {REQUEST} for step in pipeline.steps}
    found: list[list[Step]] = []
    while left:
        level = [step for name, step in left.items() if not needs[name] & left.keys()]
        if not level:
            raise PipelineError(f"the steps {', '.join(left)} wait for each other: there is a cycle")
        found.append(level)
        for step in level:
            del left[step.name]
    return found


def _check_used(pipeline: Pipeline) -> None:
    steps = {step.name: step for step in pipeline.steps}
    wanted = [source.partition(".")[0] for source in pipeline.outputs.values()]
    used: set[str] = set()
    while wanted:
        name = wanted.pop()
        if name in steps and name not in used:
            used.add(name)
            wanted += [source.partition(".")[0] for source in steps[name].sources]
    if unused := [name for name in steps if name not in used]:
        raise PipelineError(f"step {unused[0]!r} leads to no output; remove it, or name an output of it in outputs")


def derive(pipeline: Pipeline, known: Mapping[str, Signature]) -> tuple[Signature, dict[str, dict[str, TensorSpec]]]:
    """The pipeline's signature, and every step's outputs by name; `known`: the signatures of the ONNX steps.

    Raises PipelineError when an input is missing, unknown, or of another type or shape than what comes.
    """
    request = {spec.name: spec for spec in pipeline.inputs}
    outputs: dict[str, dict[str, TensorSpec]] = {REQUEST: request}
    for step in pipeline.steps:
        if step.onnx is not None:
            _derive_request(step, known[step.name], request)
    for level in levels(pipeline):
        for step in level:
            given = [_found(outputs, source, f"step {step.name!r}") for source in step.sources]
            if step.onnx is not None:
                _check_inputs(step, known[step.name], given)
                outputs[step.name] = {spec.name: spec for spec in known[step.name].outputs}
            elif step.python is not None:
                outputs[step.name] = {spec.name: spec for spec in step.outputs}
            elif step.combine is not None:
                outputs[step.name] = {"value": _combined(step, given)}
            else:
                if given[0].datatype not in FLOATS:
                    raise PipelineError(f"step {step.name!r}: a rule needs a score, not {given[0].datatype}")
                outputs[step.name] = {"decision": TensorSpec("decision", "BYTES", (-1,))}
    made = []
    for name, source in pipeline.outputs.items():
        spec = _found(outputs, source, f"output {name!r}")
        made.append(TensorSpec(name, spec.datatype, spec.shape))
    used = {source.partition(".")[2] for _, source in _references(pipeline) if source.startswith(f"{REQUEST}.")}
    if idle := [name for name in request if name not in used]:
        raise PipelineError(f"input {idle[0]!r} is taken by no step")
    inputs = tuple(request.values())
    batched = all(signature.batched for signature in known.values()) and all(
        spec.shape[:1] == (-1,) for spec in inputs
    ) and all(spec.shape[:1] in ((), (-1,)) for spec in made)  # fmt: skip
    return Signature(inputs, tuple(made), batched=batched), outputs


def _derive_request(step: Step, signature: Signature, request: dict[str, TensorSpec]) -> None:
    assert isinstance(step.inputs, dict)
    specs = {spec.name: spec for spec in signature.inputs}
    for name, source in step.inputs.items():
        origin, _, wanted = source.partition(".")
        if origin == REQUEST and wanted not in request and name in specs:
            request[wanted] = TensorSpec(wanted, specs[name].datatype, specs[name].shape)


def _found(outputs: Mapping[str, Mapping[str, TensorSpec]], source: str, where: str) -> TensorSpec:
    origin, _, name = source.partition(".")
    spec = outputs[origin].get(name)
    if spec is None:
        if origin == REQUEST:
            raise PipelineError(f"{where}: say in inputs what {source!r} is: name, datatype and shape")
        raise PipelineError(f"{where}: step {origin!r} gives no {name!r}; it gives {', '.join(outputs[origin])}")
    return spec


def _check_inputs(step: Step, signature: Signature, given: Sequence[TensorSpec]) -> None:
    assert isinstance(step.inputs, dict)
    specs = {spec.name: spec for spec in signature.inputs}
    if missing := [name for name in specs if name not in step.inputs]:
        raise PipelineError(f"step {step.name!r}: its input {missing[0]!r} comes from nowhere; add it to inputs")
    for (name, source), got in zip(step.inputs.items(), given, strict=True):
        spec = specs.get(name)
        if spec is None:
            raise PipelineError(f"step {step.name!r} has no input {name!r}; it takes {', '.join(specs)}")
        if got.datatype != spec.datatype:
            raise PipelineError(
                f"step {step.name!r}: input {name!r} is {spec.datatype}, but {source!r} is {got.datatype}"
            )
        if not _fits(got.shape, spec.shape):
            raise PipelineError(
                f"step {step.name!r}: input {name!r} is {list(spec.shape)}, but {source!r} is {list(got.shape)}"
            )


def _fits(got: Sequence[int], want: Sequence[int]) -> bool:
    # () is what exporters write that leave a shape out.
    if not got or not want:
        return True
    return len(got) == len(want) and all(
        -1 in (one, other) or one == other for one, other in zip(got, want, strict=True)
    )


def _combined(step: Step, given: Sequence[TensorSpec]) -> TensorSpec:
    first = given[0]
    for source, spec in zip(step.sources, given, strict=True):
        if spec.datatype != first.datatype or not _fits(spec.shape, first.shape):
            raise PipelineError(
                f"step {step.name!r}: {source!r} is {spec.datatype} {list(spec.shape)}, but {step.sources[0]!r} is "
                f"{first.datatype} {list(first.shape)}"
            )
    if step.combine == "vote":
        if first.datatype in FLOATS:
            raise PipelineError(f"step {step.name!r}: labels are voted on, not {first.datatype}; use mean for scores")
    elif first.datatype not in FLOATS:
        raise PipelineError(f"step {step.name!r}: {step.combine} needs floating-point numbers, not {first.datatype}")
    return TensorSpec("value", first.datatype, first.shape)
