"""The side-by-side bench: what it makes of what users and routes saw."""

from __future__ import annotations

import math

import pytest

from bench.exposure.flagger import canary, deployment, queries
from bench.exposure.measure import Figures, Seen, measured
from bench.exposure.report import false_alarms, result, rows, table
from bench.exposure.trials import CONTENDERS, EXAMPLE, FASTEST, SERINUS, trials
from fraud.records import Record
from unit.release.world import spec


def record(at: float, version: str, *, code: int = 200, latency: float = 10.0) -> Record:
    return Record(at, latency, code, "" if code else "reset", version, "", "keepalive", 1)


def figures(records: list[Record], outcome: str = "RolledBack", weights: list[Seen] | None = None) -> Figures:
    seen = weights if weights is not None else [Seen(5.0, 0), Seen(100.0, 10), Seen(110.0, 0)]
    return measured(
        "k", SERINUS.name, "errors-5", outcome, "why",
        serves="bad-1", records=records, weights=seen, began=95.0, ended=120.0, limit_ms=300.0, load=1.0,
    )  # fmt: skip


def test_from_the_first_exposed_request_to_the_last() -> None:
    found = figures(
        [
            record(90, "v1", code=500),
            record(97, "v1", code=503),
            record(101, "bad-1"),
            record(102, "bad-1", code=500),
            record(103, "v1", latency=400),
            record(112, "bad-1", latency=500),
            record(113, "", code=0),
            record(125, "v1", code=500),
        ]
    )
    assert found.detect == 9.0
    assert found.rollback == 2.5
    assert found.exposed == 3
    assert (found.bad, found.requests) == (4, 5), "what was before its first request is not the candidate's fault"
    assert (found.base_bad, found.base_requests) == (1, 1)


def test_a_candidate_that_only_breaks_connections_counts_from_its_weight() -> None:
    found = figures([record(101, "", code=0), record(109, "", code=0), record(119, "v1")])
    assert found.detect == 10.0
    assert (found.bad, found.exposed) == (2, 0)


def test_never_given_traffic_and_never_caught() -> None:
    found = figures([record(101, "v1")], weights=[Seen(5.0, 0)])
    assert (found.detect, found.rollback, found.exposed, found.bad) == (None, None, 0, 0)
    found = figures([record(101, "bad-1")], outcome="Promoted")
    assert (found.detect, found.rollback, found.exposed) == (None, None, 1)


def test_the_table_names_what_was_missed() -> None:
    caught = figures([record(101, "bad-1", code=500)])
    missed = figures([record(101, "bad-1", code=500)], outcome="Promoted")
    (row,) = rows([caught, missed, caught])
    assert (row.trials, row.caught, row.detect, row.bad) == (3, 2, 9.0, 1.0)
    assert "| 2 of 3 | 9.0 |" in table([caught, missed, caught])
    assert result([caught]).startswith("RESULT trials=1 serinus_errors_5_detect_s=9.0")


def test_false_alarms_count_only_what_ended() -> None:
    good = [
        Figures("k", SERINUS.name, "good", outcome, "", None, None, 0, 0, 1, 0, 1, 1.0, 1.0)
        for outcome in ("Promoted", "RolledBack", "Unfinished")
    ]
    assert false_alarms(good) == {SERINUS.name: (1, 2)}


def test_every_contender_meets_every_version_as_often() -> None:
    made = trials(20, 3)
    assert len({trial.key for trial in made}) == len(made) == len(CONTENDERS) * (20 + 3 * 5)


@pytest.mark.parametrize("who", [EXAMPLE, FASTEST])
def test_flagger_gets_the_same_pods_and_its_examples_settings(who: object) -> None:
    assert who in (EXAMPLE, FASTEST)
    made = deployment("ns", spec("v2"))
    labels = made["spec"]["selector"]["matchLabels"]
    assert labels.items() <= made["spec"]["template"]["metadata"]["labels"].items()
    contender = EXAMPLE if who is EXAMPLE else FASTEST
    *templates, body = canary("ns", "x.example.com", ("gw", "public"), "http://p", contender)
    analysis = body["spec"]["analysis"]
    assert (analysis["maxWeight"], analysis["stepWeight"]) == (50, 10)
    assert {metric["name"] for metric in analysis["metrics"]} == {each["metadata"]["name"] for each in templates}
    assert math.isclose(analysis["metrics"][0]["thresholdRange"]["max"], 0.1)


def test_queries_see_the_canarys_pods_only() -> None:
    for query in queries().values():
        assert 'pod=~"{{ target }}-[0-9a-z]+-[0-9a-z]+"' in query
        assert "[{{ interval }}]" in query
