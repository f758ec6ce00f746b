"""Sends the requests of a smoke test to the pods themselves, and compares the answers."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from serinus.api.smoke import Compared
from serinus.errands.edge import ErrandError, Key
from serinus.evidence.parity import Comparison, compare_answers, compare_expected, percentile
from serinus.evidence.samples import FEWEST_COMPARED, Sample, SamplesError, Tensor, enough, generate, inputs_of, parse
from serinus.release.smoke import SmokeReport, SmokeTask

REQUEST_SECONDS = 30.0
"""For one request."""
ANSWER_BYTES = 8 << 20
"""Most of an answer that is read."""
SHOWN = 200
"""Characters of an error that are kept."""
MOST_DIFFERENCES = 5
_READY = "/v2/health/ready"
MARK = {"User-Agent": "serinus-smoke-test"}
Addresses = Callable[[Key, str], Sequence[str]]
"""Base URLs of the ready pods of a revision, such as http://10.0.0.7:8080."""
ReadText = Callable[[str, str, str], Awaitable[str | None]]
"""Namespace, name and key of a ConfigMap -> its text, or None where there is none."""


@dataclass
class _Answer:
    """What a pod said. `status` 0: nothing."""

    status: int
    seconds: float
    body: Any = None
    error: str | None = None


class SmokeTester:
    """Does `SmokeTask`s.

    Args:
        addresses: where a revision's pods are.
        read: reads a ConfigMap.
        api_key: the key to show the pods of a ModelDeployment that ask for one, or None.
    """

    def __init__(self, addresses: Addresses, read: ReadText, api_key: Callable[[Key], str | None]) -> None:
        self._addresses = addresses
        self._read = read
        self._api_key = api_key

    async def run(self, owner: Key, task: object) -> SmokeReport:
        """One test from beginning to end.

        Raises:
            ErrandError: no pod could be reached, or the ConfigMap not be read: worth another try.
        """
        assert isinstance(task, SmokeTask)
        limit = aiohttp.ClientTimeout(total=REQUEST_SECONDS, connect=5.0)
        async with aiohttp.ClientSession(timeout=limit, headers=MARK, auto_decompress=True) as session:
            candidate = self._target(session, owner, task.revision, task.model, keyed=task.keyed)
            live = None
            if task.live is not None:
                live = self._target(session, owner, task.live, task.live_model, keyed=task.live_keyed)
            if not candidate.bases:
                raise ErrandError("no pod of the candidate is ready")
            for base in candidate.bases:
                await candidate.healthy(base)
            try:
                source, samples = await self._samples(owner, task, candidate)
            except SamplesError as error:
                return SmokeReport("none", 0, unsuitable=str(error))
            return await _compare(task, source, samples, candidate, live)

    def _target(self, session: aiohttp.ClientSession, owner: Key, revision: str, model: str, *, keyed: bool) -> _Target:
        key = self._api_key(owner) if keyed else None
        headers = {"X-API-Key": key} if key else {}
        return _Target(session, model, list(self._addresses(owner, revision)), headers)

    async def _samples(self, owner: Key, task: SmokeTask, candidate: _Target) -> tuple[str, list[Sample]]:
        test = task.test
        gate = task.live is not None and test.max_disagreement is not None
        inputs, why = await candidate.inputs()
        if test.samples is not None:
            found = parse(test.samples, inputs)
            if gate:
                enough(found, "smokeTest.samples")
            return "spec", found
        if test.samples_from is not None:
            name, key = test.samples_from.name, test.samples_from.key
            text = await self._read(owner[0], name, key)
            if text is None:
                raise ErrandError(f"there is no key {key!r} in a ConfigMap {name} of namespace {owner[0]}")
            found = parse(text, inputs)
            if gate:
                enough(found, f"ConfigMap {name}")
            return f"ConfigMap {name}", found
        if inputs is None:
            raise SamplesError(f"no requests can be generated: {why}; write smokeTest.samples")
        return "generated", generate(inputs, max(test.requests, FEWEST_COMPARED) if gate else test.requests)


@dataclass
class _Target:
    """The pods of one revision, asked in turn."""

    session: aiohttp.ClientSession
    model: str
    bases: list[str]
    headers: dict[str, str]
    _turn: int = 0

    async def healthy(self, base: str) -> None:
        """Opens the connection, and asks for readiness as the kubelet does: without a key, which no runtime asks for.

        Raises:
            ErrandError: the pod cannot be reached or is not ready.
        """
        try:
            async with self.session.get(f"{base}{_READY}", allow_redirects=False) as answer:
                if not 200 <= answer.status < 300:
                    raise ErrandError(f"the pod at {base} is not ready: {_READY} answers {answer.status}")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ErrandError(
                f"the pod at {base} cannot be reached from the operator: {_short(error)}; "
                "does a NetworkPolicy forbid it?"
            ) from error

    async def inputs(self) -> tuple[list[Tensor] | None, str]:
        """The model's inputs, or why they are not known."""
        try:
            async with self.session.get(f"{self.bases[0]}/v2/models/{self.model}", headers=self.headers) as answer:
                body = await _json(answer)
                if answer.status != 200:
                    return None, f"/v2/models/{self.model} answers {answer.status}"
            return inputs_of(body), ""
        except SamplesError as error:
            return None, str(error)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return None, _short(error)

    async def ask(self, sample: Sample) -> _Answer:
        """One request to the pod whose turn it is."""
        base = self.bases[self._turn % len(self.bases)]
        self._turn += 1
        url = base + (sample.path or f"/v2/models/{self.model}/infer")
        began = time.perf_counter()
        try:
            async with self.session.post(
                url, json=dict(sample.body), headers=self.headers, allow_redirects=False
            ) as answer:
                body = await _json(answer)
                seconds = time.perf_counter() - began
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return _Answer(0, time.perf_counter() - began, error=_short(error))
        if 200 <= answer.status < 300:
            return _Answer(answer.status, seconds, body)
        return _Answer(answer.status, seconds, error=f"{answer.status}: {_message(body)}")


@dataclass
class _Tally:
    """Comparisons so far."""

    samples: int = 0
    disagreeing: int = 0
    largest: float | None = None
    differences: list[str] = field(default_factory=list)

    def add(self, number: int, found: Comparison) -> None:
        self.samples += 1
        if found.largest is not None:
            self.largest = max(self.largest or 0.0, found.largest)
        if found.difference is not None:
            self.disagreeing += 1
            if len(self.differences) < MOST_DIFFERENCES:
                self.differences.append(f"sample {number}: {found.difference}")

    def told(self, note: str | None = None) -> Compared:
        largest = None if self.largest is None else float(f"{self.largest:.6g}")
        return Compared(samples=self.samples, disagreeing=self.disagreeing, largest_difference=largest, note=note)


async def _compare(
    task: SmokeTask, source: str, samples: list[Sample], candidate: _Target, live: _Target | None
) -> SmokeReport:
    """Sends every sample at least once, and those that were answered to the live revision too, each once."""
    test, tolerance = task.test, task.test.tolerance
    times: list[float] = []
    errors: list[str] = []
    refused: list[str] = []
    expected, parity = _Tally(), _Tally()
    note: str | None = None
    total = max(test.requests, len(samples))
    for number in range(total):
        sample = samples[number % len(samples)]
        answer = await candidate.ask(sample)
        times.append(answer.seconds)
        if answer.error is not None:
            errors.append(answer.error)
            if 400 <= answer.status < 500 and answer.status not in (408, 429):
                refused.append(answer.error)
            continue
        if number >= len(samples):
            continue
        if sample.expected is not None:
            found = compare_expected(answer.body, sample.expected, tolerance.absolute, tolerance.relative)
            expected.add(number + 1, found)
        if live is not None:
            other = await live.ask(sample) if live.bases else _Answer(0, 0.0, error="no pod of it is ready")
            if other.error is None:
                parity.add(number + 1, compare_answers(answer.body, other.body, tolerance.absolute, tolerance.relative))
            else:
                note = note or f"the live revision: {other.error}"
    unsuitable = None
    if source == "generated" and len(refused) == total:
        unsuitable = f"the model refuses every generated request: {refused[0]}; write smokeTest.samples"
    return SmokeReport(
        source=source,
        requests=total,
        errors=len(errors),
        error=errors[0] if errors else None,
        p50=percentile(times, 0.5),
        p95=percentile(times, 0.95),
        expected=expected.told() if expected.samples else None,
        parity=parity.told(note) if live is not None else None,
        differences=tuple((expected.differences + parity.differences)[:MOST_DIFFERENCES]),
        unsuitable=unsuitable,
    )


async def _json(answer: aiohttp.ClientResponse) -> Any:
    """The answer as JSON; as a text where it is none."""
    body = await answer.content.read(ANSWER_BYTES)
    while len(body) < ANSWER_BYTES and (more := await answer.content.read(ANSWER_BYTES - len(body))):
        body += more
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return body[:SHOWN].decode(errors="replace")


def _message(body: Any) -> str:
    text = body.get("error", body) if isinstance(body, dict) else body
    return str(text)[:SHOWN]


def _short(error: BaseException) -> str:
    if isinstance(error, asyncio.TimeoutError):
        return "no answer in time"
    return (str(error) or type(error).__name__)[:SHOWN]
