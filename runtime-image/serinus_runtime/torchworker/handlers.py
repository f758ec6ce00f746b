"""TorchServe handlers without TorchServe: the same entry points, and a context with what handlers ask of it.

What a handler may rely on is read in TorchServe 0.12's documentation of custom services: a module-level function
`handle(data, context)` (or the one named after a colon), or one class with `initialize` and `handle`. Handlers that
subclass TorchServe's own base classes need the torchserve package in the worker's interpreter.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from serinus_runtime.torchworker import bodies
from serinus_runtime.torchworker.models import RefusedError


class Metrics:
    """Takes what handlers measure, and forgets it: the front measures every request by itself."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._ignore

    def _ignore(self, *_args: object, **_named: object) -> Metrics:
        return self


class Context:
    """What `initialize` and `handle` are given. Statuses and headers are kept per request of the batch."""

    def __init__(self, name: str, directory: Path, manifest: dict[str, Any], batch_size: int, gpu: int | None) -> None:
        self.model_name = name
        self.manifest = manifest
        self.system_properties: dict[str, Any] = {
            "model_dir": str(directory),
            "gpu_id": gpu,
            "batch_size": batch_size,
            "server_name": "serinus-runtime",
            "server_version": "0.12.0",
            "limit_max_image_pixels": True,
        }
        self.model_yaml_config = _yaml(directory, manifest)
        self.metrics: Any = Metrics()
        self.request_ids: dict[int, str] = {}
        self.request_processor: list[Any] = []
        self.statuses: dict[int, tuple[int, str]] = {}
        self._headers: dict[int, dict[str, str]] = {}

    def begin(self, requests: int, content_type: str) -> None:
        """Forgets the last batch."""
        self.request_ids = {at: str(at) for at in range(requests)}
        self.statuses = {}
        self._headers = {}
        self._given = {"content-type": content_type}

    def get_request_id(self, idx: int = 0) -> str | None:
        """The id of a request within its batch."""
        return self.request_ids.get(idx)

    def get_request_header(self, idx: int, key: str) -> str | None:
        """A header of a request; there is only the content type, since arrays have no headers."""
        return self._given.get(key.lower())

    def get_all_request_header(self, idx: int) -> dict[str, str]:
        """Every header of a request."""
        return dict(self._given)

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        """Marks one answer; 400 and above make it an error."""
        self.statuses[idx] = (code, phrase)

    def set_all_response_status(self, code: int = 200, phrase: str = "") -> None:
        """Marks every answer of the batch."""
        self.statuses = dict.fromkeys(self.request_ids, (code, phrase))

    def get_response_status(self, idx: int) -> tuple[int, str]:
        """What `set_response_status` has set."""
        return self.statuses.get(idx, (200, ""))

    def set_response_header(self, idx: int, key: str, value: str) -> None:
        """Kept for the handler's own reading; tensors carry no headers."""
        self._headers.setdefault(idx, {})[key] = value

    def get_response_headers(self, idx: int) -> dict[str, str]:
        """What `set_response_header` has set."""
        return self._headers.get(idx, {})

    def set_response_content_type(self, idx: int, value: str) -> None:
        """See `set_response_header`."""
        self.set_response_header(idx, "content-type", value)

    def get_response_content_type(self, idx: int) -> str | None:
        """See `set_response_header`."""
        return self.get_response_headers(idx).get("content-type")


class HandlerModel:
    """A handler in the place of a model."""

    kind = "handler"
    takes: int | None = None
    signature: None = None

    def __init__(self, entry: Any, context: Context, style: str, inputs: Sequence[str], outputs: Sequence[Any]) -> None:
        self._entry = entry
        self._context = context
        self._style = style
        self._inputs = tuple(inputs)
        self._outputs = {spec[0]: spec for spec in outputs}

    def run(self, inputs: Sequence[Any], names: Sequence[str], _halves: Sequence[int] = ()) -> list[Any]:
        """One array per name. Raises ValueError for what does not fit, and whatever the handler raises."""
        rows = len(inputs[0])
        sent = bodies.bodies(self._style, dict(zip(self._inputs, inputs)), rows)  # noqa: B905 - lengths are equal
        binary = self._style == "binary"
        self._context.begin(len(sent), "application/octet-stream" if binary else "application/json")
        answers = self._entry([{"body": bytearray(body) if binary else body} for body in sent], self._context)
        for code, phrase in self._context.statuses.values():
            if code >= 400:
                raise ValueError(f"the handler answered {code} {phrase}".rstrip())
        if not isinstance(answers, list):
            raise bodies.AnswerError(
                f"the handler gave a {type(answers).__name__}; it must give a list, one per request"
            )
        return bodies.arrays(self._style, answers, [self._outputs[name] for name in names], rows)


def load(
    directory: Path,
    handler: str,
    *,
    name: str,
    manifest: dict[str, Any],
    batch_size: int,
    gpu: int | None,
    style: str,
    inputs: Sequence[str],
    outputs: Sequence[Any],
) -> HandlerModel:
    """Imports and initialises the handler of an unpacked archive. Raises RefusedError, or what the handler raises."""
    context = Context(name, directory, manifest, batch_size, gpu)
    context.begin(0, "")
    os.chdir(directory)
    sys.path.insert(0, str(directory))
    file, _, function = handler.partition(":")
    module = _module(file)
    if function and not hasattr(module, function):
        raise RefusedError(f"the handler {file} has no function {function!r}")
    entry = getattr(module, function or "handle", None)
    if entry is not None:
        entry(None, context)
        return HandlerModel(entry, context, style, inputs, outputs)
    classes = [each for _, each in inspect.getmembers(module, inspect.isclass) if each.__module__ == module.__name__]
    usable = [each for each in classes if hasattr(each, "handle")]
    if len(usable) != 1:
        raise RefusedError(f"the handler {file} must have a function handle(data, context), or one class with that "
                           f"method; it has {len(usable)} such classes")  # fmt: skip
    service: Any = usable[0]()
    if hasattr(service, "initialize"):
        service.initialize(context)
    return HandlerModel(service.handle, context, style, inputs, outputs)


def _module(file: str) -> Any:
    name = Path(file).name
    name = name[:-3] if name.endswith(".py") else name
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in (name, "ts") and not str(error.name).startswith("ts."):
            raise
        missing = error
    if missing.name == name:
        try:
            return importlib.import_module(f"ts.torch_handler.{name}")
        except ModuleNotFoundError as error:
            missing = error
    if str(missing.name).partition(".")[0] == "ts":
        raise RefusedError(
            f"the handler {file} needs TorchServe's own classes: install torchserve in SERINUS_TORCH_PYTHON, or "
            "subclass nothing and define initialize and handle"
        ) from None
    raise missing


def _yaml(directory: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    file = manifest.get("model", {}).get("configFile")
    if not file:
        return {}
    text = (directory / Path(file).name).read_text(encoding="utf-8")
    try:
        import yaml
    except ModuleNotFoundError:
        found = json.loads(text)
    else:
        found = yaml.safe_load(text)
    return found if isinstance(found, dict) else {}
