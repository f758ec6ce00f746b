"""Answers requests from what is remembered, and lets the batcher compute only what is not.

What is remembered is a whole request, or, for models that work in rows, each row by itself: then a batch in which some
items are known (embeddings of a catalogue) costs only the others. The first level is this process' memory, the second,
if there is one, Redis.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from prometheus_client.core import CounterMetricFamily, Metric

from serinus_runtime.cache import ResponseCache
from serinus_runtime.datatypes import Array
from serinus_runtime.inputhash import input_hash
from serinus_runtime.queueerrors import QueueFullError, TooManyRowsError
from serinus_runtime.sharedcache import Outputs, SharedCache
from serinus_runtime.tickets import Answer, Call, Ticket

Put = Callable[[Ticket], None]


class Remembering:
    """Stands before the batcher. `by_row`: rows are remembered one by one. `clock` is the batcher's."""

    def __init__(
        self, memory: ResponseCache, shared: SharedCache | None, clock: Callable[[], float], *, by_row: bool
    ) -> None:
        self.memory = memory
        self.shared = shared
        self._clock = clock
        self._by_row = by_row

    @property
    def asking(self) -> bool:
        """True while requests are looked up that may have to be computed afterwards."""
        return self.shared is not None and self.shared.asking

    def ask(self, ticket: Ticket, put: Put) -> None:
        """Answers `ticket` now or later, by `put` where something must be computed. Raises what `put` raises."""
        keys = self._keys(ticket)
        ticket.enqueued = self._clock()
        known: dict[bytes, Outputs] = {}
        missing: dict[bytes, None] = {}
        for key in keys:
            if key not in known and key not in missing:
                found = self.memory.get(key)
                if found is None:
                    missing[key] = None
                else:
                    known[key] = found
        if not missing:
            _answer(ticket, keys, known, self._clock())
        elif self.shared is None:
            self._compute(ticket, keys, known, put)
        else:
            wanted = list(missing)

            def found_shared(values: list[Outputs | None]) -> None:
                for key, value in zip(wanted, values, strict=True):
                    if value is not None:
                        known[key] = value
                        self.memory.put(key, value)
                if ticket.cancelled:
                    return
                if all(value is not None for value in values):
                    _answer(ticket, keys, known, self._clock())
                    return
                try:
                    self._compute(ticket, keys, known, put)
                except (QueueFullError, TooManyRowsError) as error:
                    ticket.result = error
                    ticket.done()

            self.shared.get(wanted, ticket.outputs, found_shared)

    def _keys(self, ticket: Ticket) -> list[bytes]:
        outputs = "\0".join(ticket.outputs).encode()
        if not self._by_row:
            return [_key(ticket.inputs, outputs)]
        inputs = ticket.inputs
        return [
            _key({name: array[row : row + 1] for name, array in inputs.items()}, outputs) for row in range(ticket.rows)
        ]

    def _compute(self, ticket: Ticket, keys: Sequence[bytes], known: dict[bytes, Outputs], put: Put) -> None:
        rows: dict[bytes, int] = {}
        for row, key in enumerate(keys):
            if key not in known and key not in rows:
                rows[key] = row
        inputs: Mapping[str, Array] = ticket.inputs
        if self._by_row and len(rows) < ticket.rows:
            index = list(rows.values())
            inputs = {name: array[index] for name, array in inputs.items()}
        count = len(rows) if self._by_row else ticket.rows
        wanted = list(rows)

        def done(answer: Answer | Exception) -> None:
            ticket.parts = None
            ticket.enqueued = missing.enqueued
            ticket.started, ticket.finished = missing.started, missing.finished
            if isinstance(answer, Exception):
                ticket.result = answer
            else:
                known.update(self._computed(answer.outputs, wanted))
                ticket.result = _joined(ticket.outputs, keys, known)
            ticket.done()

        missing = Call(inputs, count, ticket.outputs, done)
        missing.held, missing.priority, missing.deadline = ticket.held, ticket.priority, ticket.deadline
        ticket.parts = [missing]
        put(missing)

    def _computed(self, arrays: Outputs, keys: Sequence[bytes]) -> dict[bytes, Outputs]:
        """Remembers what was computed, and gives it by key."""
        found: dict[bytes, Outputs] = {}
        for at, key in enumerate(keys):
            part = {name: array[at : at + 1] for name, array in arrays.items()} if self._by_row else arrays
            self.memory.put(key, part)
            if self.shared is not None:
                self.shared.put(key, part)
            found[key] = part
        return found

    def collect(self, names: Sequence[str], values: Sequence[str]) -> Iterable[Metric]:
        """Lookups by level, with the labels that all metrics have."""
        family = CounterMetricFamily(
            "serinus_response_cache_lookups",
            "Requests, or rows, looked up by level; an error counts as a miss for the request",
            labels=[*names, "level", "outcome"],
        )
        family.add_metric([*values, "memory", "hit"], self.memory.hits)
        family.add_metric([*values, "memory", "miss"], self.memory.misses)
        if self.shared is not None:
            family.add_metric([*values, "shared", "hit"], self.shared.hits)
            family.add_metric([*values, "shared", "miss"], self.shared.misses)
            family.add_metric([*values, "shared", "error"], self.shared.errors)
        yield family
        if self.shared is not None:
            dropped = CounterMetricFamily(
                "serinus_response_cache_dropped", "Answers that Redis was not given", labels=names
            )
            dropped.add_metric(values, self.shared.dropped)
            yield dropped


def _answer(ticket: Ticket, keys: Sequence[bytes], known: Mapping[bytes, Outputs], now: float) -> None:
    ticket.started = ticket.finished = now
    ticket.result = _joined(ticket.outputs, keys, known)
    ticket.done()


def _joined(names: Sequence[str], keys: Sequence[bytes], known: Mapping[bytes, Outputs]) -> list[Array]:
    if len(keys) == 1:
        return [known[keys[0]][name] for name in names]
    return [np.concatenate([known[key][name] for key in keys]) for name in names]


def _key(inputs: Mapping[str, Array], outputs: bytes) -> bytes:
    digest = hashlib.blake2b(input_hash(inputs).encode(), digest_size=16)
    digest.update(outputs)
    return digest.hexdigest().encode()
