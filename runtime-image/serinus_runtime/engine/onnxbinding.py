"""ONNX Runtime's IO binding: inputs and outputs stay where the device wants them, and keep their place.

It pays on devices that have a memory of their own. On the CPU, where ONNX Runtime reads numpy's memory as it is, it
only adds calls; CUDA graphs need it, since a graph replays the same addresses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnxruntime

from serinus_runtime.datatypes import Array

_MAX_SHAPES = 32
"""Shapes whose buffers, and CUDA graphs, are kept; others are bound for one run."""


class Bound:
    """A session that is always run through bindings; used by one thread at a time."""

    def __init__(self, session: Any, *, graphs: bool = False) -> None:
        self._session = session
        self._graphs = graphs
        self._device = "cuda" if session.get_providers()[0].startswith(("CUDA", "Tensorrt")) else "cpu"
        self._kept: dict[tuple[object, ...], tuple[Any, dict[str, Any], Any]] = {}

    def run(self, outputs: Sequence[str], inputs: Mapping[str, Array], options: Any = None) -> list[Array]:
        """The named outputs, as `InferenceSession.run`."""
        if any(array.dtype.kind == "O" for array in inputs.values()):
            answers: list[Array] = self._session.run(outputs, inputs, options)
            return answers
        key = (tuple(outputs), *((name, array.shape) for name, array in inputs.items()))
        found = self._kept.get(key)
        if found is None:
            found = self._bind(outputs, inputs, options)
            if len(self._kept) < _MAX_SHAPES:
                self._kept[key] = found
        binding, places, run_options = found
        for name, array in inputs.items():
            places[name].update_inplace(array)
        self._session.run_with_iobinding(binding, run_options)
        given: list[Array] = binding.copy_outputs_to_cpu()
        return given

    def _bind(
        self, outputs: Sequence[str], inputs: Mapping[str, Array], options: Any
    ) -> tuple[Any, dict[str, Any], Any]:
        binding = self._session.io_binding()
        places = {
            # A copy: on the CPU the value would be the caller's array, and be written to by the next run.
            name: onnxruntime.OrtValue.ortvalue_from_numpy(array.copy(), self._device, 0)
            for name, array in inputs.items()
        }
        for name, place in places.items():
            binding.bind_ortvalue_input(name, place)
        if not self._graphs:
            for name in outputs:
                binding.bind_output(name, self._device)
            return binding, places, options
        # A graph replays addresses, so its outputs need a place of their own, whose size only a run can tell.
        found = self._session.run(outputs, inputs, _graph(-1))
        for name, array in zip(outputs, found, strict=True):
            place = onnxruntime.OrtValue.ortvalue_from_numpy(array, self._device, 0)
            binding.bind_ortvalue_output(name, place)
        return binding, places, _graph(len(self._kept) + 1 if len(self._kept) < _MAX_SHAPES else -1)


def _graph(number: int) -> Any:
    """Run options that record and replay the CUDA graph of this number; -1 is none."""
    options = onnxruntime.RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(number))
    return options
