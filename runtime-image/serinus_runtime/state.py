"""What the process serves, and what it is doing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from serinus_runtime.asked import Front
from serinus_runtime.batching import Batcher, Ticket
from serinus_runtime.http import Exchange
from serinus_runtime.oip import InferCodec
from serinus_runtime.predictionlog import Prediction, PredictionLog
from serinus_runtime.remembering import Remembering
from serinus_runtime.statistics import Statistics
from serinus_runtime.tracing import Tracing

if TYPE_CHECKING:
    from serinus_runtime.control import Control
    from serinus_runtime.jobs.http import JobsFront


@dataclass
class Model:
    """A model that is ready to answer."""

    codec: InferCodec
    batcher: Batcher
    platform: str
    fronts: Mapping[str, Front]
    """By what `_ask_paths` call it: how else the model can be asked."""
    documents: Mapping[bytes, tuple[bytes, bytes]]
    """By path: content type and body."""
    statistics: Statistics
    weight: int = 1
    """Bytes of memory that a byte of a request's body can become while it waits."""
    unproved: str = ""
    """What warm-up could not prove."""


class Refusal(NamedTuple):
    """Why a request is not let in. `reason` is one of metrics.REJECTIONS; `headers` are whole lines."""

    reason: str
    status: int
    message: str
    headers: bytes = b""


class Away(NamedTuple):
    """How it is told that there is no model: to who asks it, in the repository's index, in TF Serving's words."""

    refusal: Refusal
    state: str
    reason: str
    old_state: str


GOING = Refusal("draining", 503, "this server is going away: ask another", b"retry-after: 1\r\n")
LOADING = "the model is still loading"
STARTING = Away(Refusal("not_ready", 503, LOADING, b"retry-after: 1\r\n"), "UNAVAILABLE", LOADING, "LOADING")


class State:
    """What the process is doing, as its probes tell it."""

    def __init__(self) -> None:
        self.model: Model | None = None
        self.away = STARTING
        """What is told while `model` is None."""
        self.control: Control | None = None
        """Loads and unloads the model for clients, where that is on."""
        self.ingress: Ingress | None = None
        self.raw: Mapping[bytes, Callable[[Exchange], None]] = {}
        """Paths of the engine's own protocol, where it has one."""
        self.predictions: PredictionLog | None = None
        self.tap: Callable[[Prediction], None] | None = None
        """Takes predictions while a joiner reads them."""
        self.tapped: Callable[[Exchange], None] | None = None
        """Answers whoever wants to read predictions."""
        self.cache: Remembering | None = None
        self.tracing: Tracing | None = None
        self.jobs: JobsFront | None = None
        self.run_job: Callable[[Exchange], None] = lambda _: None
        """Runs a request that was accepted as a job."""
        self.draining = False
        self.refusing = False
        """True once the drain delay is over: requests that still arrive are answered 503."""
        self.alive: Callable[[], bool] = lambda: True
        self.engine_ready: Callable[[], bool] = lambda: True
        self.fronted: Callable[[], bool] | None = None
        """Whether the engine beside us is ready, where it is one of those."""

    @property
    def ready(self) -> bool:
        """True after warm-up and before the drain."""
        if self.fronted is not None:
            return not self.draining and self.fronted()
        return self.model is not None and not self.draining and self.alive() and self.engine_ready()

    @property
    def standing(self) -> tuple[str, str]:
        """The model's state and the reason for it, as the repository's index tells them."""
        if self.ready:
            return "READY", ""
        return ("UNAVAILABLE", "draining") if self.draining else (self.away.state, self.away.reason)


class Ingress(Protocol):
    """Looks at inference requests before anything of them is decoded."""

    def admit(self, exchange: Exchange, ticket: Ticket) -> Refusal | None:
        """None lets the request in, perhaps with a priority or a deadline on its ticket. Must not block."""

    def admit_control(self, exchange: Exchange, ticket: Ticket) -> Refusal | None:
        """As `admit`, for a request that changes which models are served."""

    def decoded(self, ticket: Ticket, rows: int, parameters: Mapping[str, Any] | None) -> None:
        """The request has `rows` rows and `parameters`. Raises InvalidRequestError, DeadlineError."""

    def closed_to(self, exchange: Exchange, path: bytes) -> Refusal | None:
        """None: whoever asks may read what `path` tells; for paths that are not inference."""
