"""The methods of the gRPC port, and what each answers."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from google.protobuf import json_format

from serinus_runtime import __version__
from serinus_runtime.app import EXTENSIONS
from serinus_runtime.control import GUARDED, LOAD, UNLOAD, Outcome
from serinus_runtime.grpc.call import Call
from serinus_runtime.grpc.codec import parsed
from serinus_runtime.grpc.health import Health
from serinus_runtime.grpc.inference import Asking, not_served, trailing
from serinus_runtime.grpc.port import Method
from serinus_runtime.grpc.reflection import Reflection
from serinus_runtime.grpc.schema import Message, message_class
from serinus_runtime.metrics import Metrics
from serinus_runtime.problems import InvalidRequestError
from serinus_runtime.state import Model, State

_REFUSALS = {413: "too_large", 429: "queue_full", 408: "timeout", 504: "timeout"}
_INFERENCE = b"/inference.GRPCInferenceService/"
_OPEN = frozenset(("ServerLive", "ServerReady", "ModelReady"))
"""What is told without a key: a kubelet has none."""
_SHARED_MEMORY = "shared memory is not supported; send the data"
_NOT_HERE = {
    "SystemSharedMemoryStatus": _SHARED_MEMORY,
    "SystemSharedMemoryRegister": _SHARED_MEMORY,
    "SystemSharedMemoryUnregister": _SHARED_MEMORY,
    "CudaSharedMemoryStatus": _SHARED_MEMORY,
    "CudaSharedMemoryRegister": _SHARED_MEMORY,
    "CudaSharedMemoryUnregister": _SHARED_MEMORY,
    "TraceSetting": "traces are set by the environment of the server",
    "LogSettings": "the log is set by the environment of the server",
}


class AnswerError(Exception):
    """The call fails with an HTTP status' counterpart and a text."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class GrpcService:
    """What stands behind the gRPC port: the Open Inference Protocol for one model, health and reflection."""

    def __init__(self, name: str, version: str, state: State, metrics: Metrics, health: Health | None = None) -> None:
        """`health` goes on telling who watches it."""
        self._name = name
        self._version = version
        self._state = state
        self._metrics = metrics
        self.health = health or Health(name, state)
        self._asking = asking = Asking(name, version, state, metrics)
        self._ask_paths = {_INFERENCE + b"ModelInfer", _INFERENCE + b"ModelStreamInfer"}
        reflection = Method(stream=Reflection)
        self._methods = {
            _INFERENCE + b"ModelInfer": Method(unary=asking.one),
            _INFERENCE + b"ModelStreamInfer": Method(stream=asking.stream),
            b"/grpc.health.v1.Health/Check": Method(unary=self.health.check),
            b"/grpc.health.v1.Health/Watch": Method(stream=self.health.watch),
            b"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": reflection,
            b"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": reflection,
        }
        plain: dict[str, Callable[[Message], dict[str, object]]] = {
            "ServerLive": lambda _: {"live": state.alive()},
            "ServerReady": lambda _: {"ready": state.ready},
            "ModelReady": self._model_ready,
            "ServerMetadata": lambda _: {
                "name": "serinus-runtime",
                "version": __version__,
                "extensions": [extension for extension in EXTENSIONS if extension != "binary_tensor_data"],
            },
            "ModelMetadata": self._metadata,
            "ModelConfig": self._config,
            "ModelStatistics": self._statistics,
            "RepositoryIndex": self._index,
        }
        for verb in (LOAD, UNLOAD):
            called = f"RepositoryModel{verb.capitalize()}"
            self._methods[_INFERENCE + called.encode()] = Method(unary=_controlling(called, verb, state))
        for called, answer in plain.items():
            unary = _plain(called, answer)
            if called not in _OPEN:
                unary = self._for_readers(unary)
            self._methods[_INFERENCE + called.encode()] = Method(unary=unary)
        for called, text in _NOT_HERE.items():
            self._methods[_INFERENCE + called.encode()] = Method(unary=_refusing(501, text))

    def find(self, path: bytes) -> Method | None:
        """The method with this path."""
        return self._methods.get(path)

    def refused(self, path: bytes, code: int) -> None:
        """Counts what the connection refused, when it was an inference request."""
        if path in self._ask_paths:
            self._metrics.rejected[_REFUSALS.get(code, "invalid")] += 1
            self._metrics.answered(code, 0.0)

    def _for_readers(self, unary: Callable[[Call, bytes], None]) -> Callable[[Call, bytes], None]:
        """`unary` for whoever may read the model's metadata over HTTP."""

        def handle(call: Call, body: bytes) -> None:
            ingress = self._state.ingress
            if ingress is not None:
                asked = self._asking.exchange(call, b"", lambda *_: None)
                if (refusal := ingress.closed_to(asked, call.head.path)) is not None:
                    call.fail(refusal.status, refusal.message, trailing(refusal.headers))
                    return
            unary(call, body)

        return handle

    def _model(self, request: Message) -> Model:
        self._must_be_ours(request)
        model = self._state.model
        if model is None:
            refusal = self._state.away.refusal
            raise AnswerError(refusal.status, refusal.message)
        return model

    def _must_be_ours(self, request: Message) -> None:
        text = not_served(self._name, self._version, request.name, request.version)
        if text:
            raise AnswerError(404, text)

    def _model_ready(self, request: Message) -> dict[str, object]:
        self._must_be_ours(request)
        return {"ready": self._state.ready}

    def _metadata(self, request: Message) -> dict[str, object]:
        model = self._model(request)
        found: dict[str, object] = msgspec.json.decode(model.codec.metadata(self._name, self._version, model.platform))
        return found

    def _config(self, request: Message) -> dict[str, object]:
        model = self._model(request)
        _, body = model.documents[f"/v2/models/{self._name}/config".encode()]
        config = msgspec.json.decode(body)
        if not self._version.isdigit():
            # Versions are numbers in this message; the model's metadata has the name.
            config.pop("version_policy", None)
        return {"config": config}

    def _statistics(self, request: Message) -> dict[str, object]:
        if not request.name:
            request.name = self._name
        return {"model_stats": [self._model(request).statistics.describe(self._name, self._version, self._metrics)]}

    def _index(self, request: Message) -> dict[str, object]:
        ready = self._state.ready
        state, reason = self._state.standing
        entry = {"name": self._name, "version": self._version, "state": state, "reason": reason}
        return {"models": [entry] if ready or not request.ready else []}


def _plain(name: str, answer: Callable[[Message], dict[str, object]]) -> Callable[[Call, bytes], None]:
    """A method whose answer is made at once, from what its JSON over HTTP would be."""
    asked = message_class(f"inference.{name}Request")
    answered = message_class(f"inference.{name}Response")

    def handle(call: Call, body: bytes) -> None:
        try:
            message = json_format.ParseDict(answer(parsed(asked, body)), answered(), ignore_unknown_fields=True)
        except InvalidRequestError as error:
            call.fail(400, str(error))
        except AnswerError as error:
            call.fail(error.code, error.text)
        else:
            call.reply([message.SerializeToString()])

    return handle


def _controlling(name: str, verb: str, state: State) -> Callable[[Call, bytes], None]:
    """The method that loads or unloads the model, answered when that is done."""
    asked = message_class(f"inference.{name}Request")
    done = message_class(f"inference.{name}Response")().SerializeToString()

    def handle(call: Call, body: bytes) -> None:
        def answer(outcome: Outcome) -> None:
            if outcome.status == 200:
                call.reply([done])
            else:
                call.fail(outcome.status, outcome.text, trailing(outcome.headers))

        if state.control is None:
            call.fail(403, GUARDED)
            return
        try:
            request = parsed(asked, body)
        except InvalidRequestError as error:
            call.fail(400, str(error))
            return
        state.control.ask(call.head.fields, verb, request.model_name, list(request.parameters), answer)

    return handle


def _refusing(code: int, text: str) -> Callable[[Call, bytes], None]:
    def handle(call: Call, _body: bytes) -> None:
        call.fail(code, text)

    return handle
