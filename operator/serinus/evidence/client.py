"""Asks Prometheus: the one place of this package that talks to the outside."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import requests
from prometheus_api_client import PrometheusConnect
from prometheus_api_client.exceptions import PrometheusApiClientException
from urllib3.util.retry import Retry

from serinus.evidence import mirrored
from serinus.evidence.counters import Snapshot
from serinus.evidence.queries import COUNTERS, RATES

K = TypeVar("K")
OWNER_LABELS = ("model_namespace", "model_deployment", "revision")
SERIES_LABELS = (*OWNER_LABELS, "instance")
QUERIES = (*COUNTERS.values(), *RATES.values(), mirrored.COUNTS, mirrored.FIGURES)
"""All that is asked in a tick, however many releases there are."""
MOST_OWN = 200
"""Different queries of users that are asked per tick."""


class PrometheusUnavailable(Exception):
    """Prometheus did not answer, or answered with an error. Says which and what to look at."""


class Prometheus:
    """A Prometheus server, asked with a bounded number of threads and a limit on every call."""

    def __init__(self, url: str, *, call_timeout: float = 3.0, threads: int = 4) -> None:
        self._url = url
        self._timeout = call_timeout
        # The library waits without end by default, and its retries multiply that.
        self._connect = PrometheusConnect(url, timeout=call_timeout, retry=Retry(total=0), method="POST")
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="prometheus")

    async def snapshot(self, own: Collection[str] = ()) -> Snapshot:
        """All queries of a tick for one moment.

        Args:
            own: users' own PromQL, each asked once. What is wrong with one of them is its own problem only.

        Raises:
            PrometheusUnavailable: any of the queries failed; a part of the truth is not evidence.
        """
        now = time.time()
        loop = asyncio.get_running_loop()

        def ask(query: str) -> asyncio.Future[list[dict[str, Any]]]:
            return loop.run_in_executor(self._threads, self._query, query, now)

        names = [*COUNTERS, *RATES]
        users = list(dict.fromkeys(own))
        try:
            async with asyncio.timeout(2 * self._timeout + 1):
                answers = await asyncio.gather(*(ask(query) for query in QUERIES))
        except TimeoutError as error:
            raise PrometheusUnavailable(f"Prometheus at {self._url} did not answer in {self._timeout:g} s") from error
        *plain, counts, figures = answers
        by_name = dict(zip(names, plain, strict=True))
        try:
            async with asyncio.timeout(2 * self._timeout + 1):
                mine = await asyncio.gather(*(ask(query) for query in users[:MOST_OWN]), return_exceptions=True)
        except TimeoutError:
            mine = [PrometheusUnavailable(f"no answer in {2 * self._timeout + 1:g} s")] * len(users[:MOST_OWN])
        found: dict[str, dict[tuple[str, str, str], float] | str] = dict.fromkeys(
            users[MOST_OWN:], f"more than {MOST_OWN} different queries in the cluster: only that many are asked"
        )
        found |= {query: _own(answer) for query, answer in zip(users, mine, strict=False)}
        return Snapshot(
            now,
            {name: _series(by_name[name], _series_key) for name in COUNTERS},
            {name: _series(by_name[name], _owner_key) for name in RATES},
            found,
            _shadow(counts, figures),
        )

    def _query(self, query: str, at: float) -> list[dict[str, Any]]:
        try:
            answer = self._connect.custom_query(query, params={"time": f"{at:.3f}"})
        except requests.RequestException as error:
            raise PrometheusUnavailable(f"Prometheus at {self._url} cannot be reached: {_short(error)}") from error
        except PrometheusApiClientException as error:
            raise PrometheusUnavailable(f"Prometheus at {self._url} refused a query: {_short(error)}") from error
        except (KeyError, TypeError, ValueError) as error:
            raise PrometheusUnavailable(f"what answers at {self._url} is not Prometheus: {_short(error)}") from error
        return list(answer)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._connect.close()


def _short(error: Exception) -> str:
    text = str(error)
    for sign in ("Connection refused", "timed out", "Name or service not known", "No route to host"):
        if sign in text:
            return sign.lower()
    return text[:200]


def _series_key(labels: Mapping[str, str]) -> tuple[str, str, str, str]:
    namespace, deployment, revision, instance = (labels.get(name, "") for name in SERIES_LABELS)
    return namespace, deployment, revision, instance


def _owner_key(labels: Mapping[str, str]) -> tuple[str, str, str]:
    namespace, deployment, revision = (labels.get(name, "") for name in OWNER_LABELS)
    return namespace, deployment, revision


def _series(answer: list[dict[str, Any]], key: Callable[[Mapping[str, str]], K]) -> dict[K, float]:
    """A vector as numbers by owner; NaN and malformed samples are no data, and left out."""
    found: dict[K, float] = {}
    for entry in answer:
        try:
            value = float(entry["value"][1])
        except (KeyError, IndexError, TypeError, ValueError):
            continue
        if value == value and value not in (float("inf"), float("-inf")):
            found[key(entry.get("metric", {}))] = value
    return found


def _shadow(counts: list[dict[str, Any]], figures: list[dict[str, Any]]) -> mirrored.ShadowSnapshot:
    """What joiners told, by owner."""
    by_owner: dict[tuple[str, str, str], dict[str, float]] = {}
    told = _series(figures, lambda labels: (_owner_key(labels), mirrored.figure(labels)))
    for (owner, name), value in told.items():
        by_owner.setdefault(owner, {})[name] = value
    return mirrored.ShadowSnapshot(
        _series(counts, lambda labels: (_series_key(labels), mirrored.count(labels))), by_owner
    )


def _own(answer: list[dict[str, Any]] | BaseException) -> dict[tuple[str, str, str], float] | str:
    """A user's vector by owner, or what is wrong with it. A value that is no number is no data."""
    if isinstance(answer, PrometheusUnavailable):
        return str(answer)
    if isinstance(answer, BaseException):
        raise answer
    labels = ", ".join(OWNER_LABELS)
    seen: set[tuple[str, str, str]] = set()
    for entry in answer:
        metric = entry.get("metric") if isinstance(entry, dict) else None
        if metric is None or not all(metric.get(name) for name in OWNER_LABELS):
            return f"the query returns samples without the labels {labels}: write sum by ({labels}) (...)"
        if (key := _owner_key(metric)) in seen:
            return f"the query returns several series for revision {key[2]}: write sum by ({labels}) (...)"
        seen.add(key)
    return _series(answer, _owner_key)
