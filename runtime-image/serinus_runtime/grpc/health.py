"""`grpc.health.v1.Health`: what kubelets, gateways and clients ask."""

from __future__ import annotations

from serinus_runtime.grpc.call import Call
from serinus_runtime.grpc.codec import parsed
from serinus_runtime.grpc.schema import SERVICES, message_class
from serinus_runtime.problems import InvalidRequestError
from serinus_runtime.state import State

_REQUEST = message_class("grpc.health.v1.HealthCheckRequest")
_RESPONSE = message_class("grpc.health.v1.HealthCheckResponse")
_SERVING, _NOT_SERVING, _SERVICE_UNKNOWN = 1, 2, 3
_MAX_WATCHERS = 4096


class Health:
    """Serving is what `ready` is over HTTP. Call `tell` when that may have changed."""

    def __init__(self, model: str, state: State) -> None:
        self._state = state
        self._known = {"", model, *SERVICES}
        self.watchers: dict[Watcher, None] = {}

    def status(self, service: str) -> int:
        """A ServingStatus."""
        if service not in self._known:
            return _SERVICE_UNKNOWN
        return _SERVING if self._state.ready else _NOT_SERVING

    def check(self, call: Call, body: bytes) -> None:
        """Answers a Check."""
        try:
            service = parsed(_REQUEST, body).service
        except InvalidRequestError as error:
            call.fail(400, str(error))
            return
        status = self.status(service)
        if status == _SERVICE_UNKNOWN:
            call.fail(404, f"service {service[:200]!r} is not known here")
        else:
            call.reply([_RESPONSE(status=status).SerializeToString()])

    def watch(self, call: Call) -> Watcher:
        """Begins a Watch."""
        return Watcher(self, call)

    def tell(self) -> None:
        """Tells every watcher what has changed for it."""
        for watcher in list(self.watchers):
            watcher.tell()


class Watcher:
    """One Watch: the status now, and again whenever it changes, until the client goes."""

    def __init__(self, health: Health, call: Call) -> None:
        self._health = health
        self._call = call
        self._service: str | None = None
        self._told = -1

    def wants(self) -> bool:
        """There is one request, and more of them would be an error: look at all."""
        return True

    def message(self, payload: bytes) -> None:
        """The request."""
        if self._service is not None:
            self._call.fail(400, "Watch has one request")
            return
        if len(self._health.watchers) >= _MAX_WATCHERS:
            self._call.fail(429, "too many watchers: ask Check")
            return
        try:
            self._service = parsed(_REQUEST, payload).service
        except InvalidRequestError as error:
            self._call.fail(400, str(error))
            return
        self._health.watchers[self] = None
        self._call.on_gone = self._gone
        self.tell()

    def end(self) -> None:
        """The client has said what it wants to know."""
        if self._service is None:
            self._call.fail(400, "Watch needs a request")

    def tell(self) -> None:
        """Sends the status if it is another one than before."""
        if self._call.answered:
            self._gone()
            return
        status = self._health.status(self._service or "")
        # A client that takes nothing is told the newest status once it does.
        if status != self._told and not self._call.pending:
            self._told = status
            self._call.send([_RESPONSE(status=status).SerializeToString()])

    def _gone(self) -> None:
        self._health.watchers.pop(self, None)
