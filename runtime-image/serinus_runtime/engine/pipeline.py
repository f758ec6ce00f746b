"""A graph of steps in one model directory: ONNX models, Python functions, ensembles, rules. `graph` reads the file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from prometheus_client.core import Metric

from serinus_runtime.config import Config
from serinus_runtime.datatypes import Array
from serinus_runtime.engine import graph, onnx
from serinus_runtime.engine.base import Engine, EngineError, Signature, TensorSpec
from serinus_runtime.engine.graph import REQUEST, PipelineError, Step
from serinus_runtime.engine.pythoncode import call, checked, start_code
from serinus_runtime.engine.times import StepTimes
from serinus_runtime.engine.worker import WorkerPool
from serinus_runtime.failures import FailureError, Reason

FILE = "pipeline.json"
_MAX_BYTES = 1 << 20
_Work = Callable[[Mapping[str, Array], Sequence[Array]], Mapping[str, Array]]
"""A step: its inputs by name, and the same in the order of their sources."""


class PipelineEngine(Engine):
    """Runs the steps of a graph; those that do not depend on each other at the same time."""

    platform = "serinus_pipeline"
    backend = "pipeline"

    def __init__(
        self,
        pipeline: graph.Pipeline,
        signature: Signature,
        works: Mapping[str, _Work],
        engines: Mapping[str, Engine],
        pools: Mapping[str, WorkerPool],
        config: Config,
    ) -> None:
        self._pipeline = pipeline
        self._signature = signature
        self._works = works
        self._engines = engines
        self._pools = pools
        self._patience = config.engine_timeout
        self._instances = config.instances
        self._levels = graph.levels(pipeline)
        self._times = StepTimes(step.name for step in pipeline.steps)
        wide = max(len(level) for level in self._levels)
        self._threads = ThreadPoolExecutor((wide - 1) * config.instances, "serinus-step") if wide > 1 else None

    @property
    def signature(self) -> Signature:
        """What the first steps take and the named outputs are."""
        return self._signature

    @property
    def runtime(self) -> str:
        """That of the first ONNX step."""
        return next((engine.runtime for engine in self._engines.values()), "python")

    @property
    def instances(self) -> int:
        """How many batches may be in the pipeline at the same time."""
        return self._instances

    @property
    def inline(self) -> bool:
        """Whether every step may run on the event loop."""
        return not self._pools and self._threads is None and all(engine.inline for engine in self._engines.values())

    @property
    def details(self) -> Mapping[str, str]:
        """The steps in the order of running, and the engines' own."""
        steps = " > ".join(" + ".join(step.name for step in level) for level in self._levels)
        more = next((engine.details for engine in self._engines.values()), {})
        return {**more, "steps": steps}

    @property
    def parts(self) -> Sequence[Engine]:
        """The models among the steps."""
        return tuple(self._engines.values())

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """The named outputs for one batch. Raises EngineError, which names the step."""
        found = self._run(inputs)
        answers = []
        for name in outputs:
            origin, _, output = self._pipeline.outputs[name].partition(".")
            answers.append(found[origin][output])
        return answers

    def prepared(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """What the steps hand to each other."""
        last = set(self._pipeline.outputs.values())
        made = {
            f"{step}.{name}": array
            for step, arrays in self._run(inputs).items()
            if step != REQUEST
            for name, array in arrays.items()
        }
        return {name: array for name, array in made.items() if name not in last}

    def _run(self, inputs: Mapping[str, Array]) -> Mapping[str, Mapping[str, Array]]:
        """Outputs by step."""
        found: dict[str, Mapping[str, Array]] = {REQUEST: inputs}
        for level in self._levels:
            others = level[1:]
            if others and self._threads is not None:
                running = [(step, self._threads.submit(self._step, step, found)) for step in others]
                made = {level[0].name: self._step(level[0], found)}
                made |= {step.name: future.result() for step, future in running}
            else:
                made = {step.name: self._step(step, found) for step in level}
            found |= made
        return found

    def _step(self, step: Step, found: Mapping[str, Mapping[str, Array]]) -> Mapping[str, Array]:
        given = []
        for source in step.sources:
            origin, _, output = source.partition(".")
            given.append(found[origin][output])
        names = step.inputs if isinstance(step.inputs, dict) else ()
        try:
            with self._times.measure(step.name):
                return self._works[step.name](dict(zip(names, given, strict=False)), given)
        except EngineError as error:
            # The type is kept: what ran out of time is told apart from what failed.
            raise type(error)(f"step {step.name!r}: {error}") from error
        except Exception as error:
            raise EngineError(f"step {step.name!r}: {type(error).__name__}: {error}") from error

    def alive(self) -> bool:
        """False when a step has had no worker for too long."""
        pools = all(pool.alive(self._patience) for pool in self._pools.values())
        return pools and all(engine.alive() for engine in self._engines.values())

    def ready(self) -> bool:
        """False while all workers of a step are being replaced."""
        return all(pool.ready > 0 for pool in self._pools.values())

    def collect(self, names: Sequence[str], values: Sequence[str]) -> Iterable[Metric]:
        """The time of each step, and the workers of the Python steps together."""
        yield self._times.collect(names, values)
        for pool in self._pools.values():
            yield from pool.collect(names, values)

    def close(self) -> None:
        """Ends threads, workers and engines."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
        for pool in self._pools.values():
            pool.close()
        for engine in self._engines.values():
            engine.close()


def open_engine(config: Config) -> PipelineEngine:
    """The pipeline in `config.model_dir`. Raises FailureError."""
    path = config.model_dir / FILE
    engines: dict[str, Engine] = {}
    pools: dict[str, WorkerPool] = {}
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise PipelineError(f"it is larger than {_MAX_BYTES} bytes")  # noqa: TRY301
        pipeline = graph.read(path.read_bytes())
        for step in pipeline.steps:
            if step.onnx is not None:
                engines[step.name] = _load(config, step, step.onnx)
        signature, outputs = graph.derive(pipeline, {name: engine.signature for name, engine in engines.items()})
        functions = [step for step in pipeline.steps if step.python is not None]
        if functions:
            pools["python"] = _start(config, functions)
        works = {
            step.name: _work(step, engines.get(step.name), pools.get("python"), outputs[step.name])
            for step in pipeline.steps
        }
    except BaseException as error:
        for pool in pools.values():
            pool.close()
        for engine in engines.values():
            engine.close()
        if isinstance(error, PipelineError | OSError):
            raise FailureError(Reason.MODEL_LOAD_FAILED, f"{FILE}: {error}") from error
        raise
    return PipelineEngine(pipeline, signature, works, engines, pools, config)


def _load(config: Config, step: Step, file: str) -> Engine:
    if Path(file).is_absolute() or ".." in Path(file).parts:
        raise PipelineError(f"step {step.name!r}: {file!r} leaves the model directory")
    return onnx.load(config.model_dir, config.threads, options=config.onnx, instances=config.instances, file=file)


def _start(config: Config, steps: Sequence[Step]) -> WorkerPool:
    files = {str(step.python) for step in steps}
    if len(files) > 1:
        raise PipelineError(f"the Python functions of a pipeline live in one file, not in {', '.join(sorted(files))}")
    pool = start_code(config, files.pop(), [step.function for step in steps], FILE)
    for step in steps:
        if step.function not in pool.described["functions"]:
            pool.close()
            raise PipelineError(f"step {step.name!r}: {step.python} has no function {step.function!r}")
    return pool


def _work(step: Step, engine: Engine | None, pool: WorkerPool | None, outputs: Mapping[str, TensorSpec]) -> _Work:
    if engine is not None:
        return partial(_run_engine, engine, tuple(outputs))
    if step.python is not None:
        assert pool is not None
        return partial(_run_code, pool, step.function, tuple(outputs.values()))
    if step.combine == "vote":
        return lambda _, given: {"value": _vote(given)}
    if step.combine is not None:
        weights = step.weights or (1.0,) * len(step.inputs)
        return lambda _, given: {"value": _average(given, weights)}
    assert step.rule is not None
    return partial(_decide, _rule(step))


def _run_engine(engine: Engine, names: Sequence[str], inputs: Mapping[str, Array], _: object) -> Mapping[str, Array]:
    return dict(zip(names, engine.run(inputs, names), strict=True))


def _run_code(
    pool: WorkerPool, function: str, specs: Sequence[TensorSpec], inputs: Mapping[str, Array], _: object
) -> Mapping[str, Array]:
    return checked(call(pool, function, inputs), specs, function)


def _average(given: Sequence[Array], weights: Sequence[float]) -> Array:
    """The weighted mean, summed in double precision, in the type of the inputs."""
    total = sum(weight * np.asarray(array, np.float64) for weight, array in zip(weights, given, strict=True))
    mean: Array = np.asarray(total / sum(weights)).astype(given[0].dtype)
    return mean


def _vote(given: Sequence[Array]) -> Array:
    """The most frequent label of each element; among equals that which comes first in the order of the inputs."""
    stacked = np.stack([np.asarray(array) for array in given])
    counts = np.stack([(stacked == one).sum(axis=0) for one in stacked])
    best = counts.argmax(axis=0)
    chosen: Array = np.take_along_axis(stacked, best[np.newaxis], axis=0)[0]
    return chosen


def _rule(step: Step) -> Any:
    from serinus_runtime.about import Rule

    assert step.rule is not None
    ordered = tuple(sorted(step.rule.thresholds.items(), key=lambda item: -item[1]))
    if not ordered:
        raise PipelineError(f"step {step.name!r}: there are no thresholds")
    return Rule(step.sources[0], step.rule.column, ordered, step.rule.otherwise)


def _decide(rule: Any, _: object, given: Sequence[Array]) -> Mapping[str, Array]:
    return {"decision": rule.decide(rule.scores(given[0]))}
