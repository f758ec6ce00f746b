"""Simulated releases: the real machine, so what holds for releases holds here; and the dice are fair."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from random import Random
from statistics import fmean, pvariance

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from serinus.cli import main
from serinus.simulation.draws import binomial, poisson
from serinus.simulation.run import UNDECIDED, run, summary, upper
from serinus.simulation.scenario import Clumps, Scenario, Version, simulated
from serinus.simulation.traffic import Profile, TrafficError, invented, recorded
from unit.release.world import releasing, spec

ROOT = Path(__file__).parents[3]
BAD = Scenario(candidate=Version(errors=0.05))


def close(values: Sequence[float], mean: float, variance: float) -> bool:
    """Whether mean and variance are within five standard errors (for the variance, generously)."""
    wide = 5 * math.sqrt(variance / len(values))
    return abs(fmean(values) - mean) < wide and abs(pvariance(values) / variance - 1) < 0.2


@pytest.mark.parametrize("mean", [0.3, 4.0, 49.0, 400.0])
def test_poisson(mean: float) -> None:
    rng = Random(1)
    assert close([poisson(mean, rng) for _ in range(4000)], mean, mean)


@pytest.mark.parametrize(("number", "share"), [(10, 0.3), (1000, 0.001), (1000, 0.2), (40, 0.9)])
def test_binomial(number: int, share: float) -> None:
    rng = Random(1)
    drawn = [binomial(number, share, rng) for _ in range(4000)]
    assert close(drawn, number * share, number * share * (1 - share))
    assert all(0 <= each <= number for each in drawn)


@given(number=st.integers(-1, 10**6), share=st.floats(0, 1), seed=st.integers(0, 99))
@settings(deadline=None)
def test_binomial_is_never_out_of_range(number: int, share: float, seed: int) -> None:
    assert 0 <= binomial(number, share, Random(seed)) <= max(0, number)


@pytest.mark.parametrize("profile", list(Profile))
def test_profiles_keep_their_average(profile: Profile) -> None:
    rate = invented(profile, 10.0)
    assert fmean(rate(at) for at in range(0, 86_400, 10)) == pytest.approx(10.0, rel=0.01)
    assert min(rate(at) for at in range(0, 86_400, 10)) > 0


def test_a_recording_holds_between_lines_and_begins_anew() -> None:
    rate = recorded(["time,rate", "100,1", "110,5", "120,0"])
    assert [rate(at) for at in (0, 9, 10, 20, 29, 30, 41)] == [1, 1, 5, 0, 0, 1, 5]
    iso = recorded(["time,rate", "2026-11-21T00:00:00Z,1", "2026-11-21T00:01:00Z,2"])
    assert (iso(59), iso(60)) == (1, 2)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([], "must name the columns"),
        (["a,b", "1,2"], "must name the columns"),
        (["time,rate"], "no line"),
        (["time,rate", "1,2", "x,3"], "line 3"),
        (["time,rate", "1,2", "1,3"], "times must rise"),
        (["time,rate", "1,-2"], "rates must be 0 or more"),
        (["time,rate", "1,nan"], "rates must be 0 or more"),
    ],
)
def test_a_wrong_recording_is_told_by_its_line(lines: list[str], says: str) -> None:
    with pytest.raises(TrafficError, match=says):
        recorded(lines)


def test_the_same_seed_ends_the_same() -> None:
    assert run(spec(), BAD, 7) == run(spec(), BAD, 7)
    assert run(spec(), BAD, 7) != run(spec(), BAD, 8)


@pytest.mark.parametrize("clumps", list(Clumps))
def test_good_ones_are_promoted_and_bad_ones_found(clumps: Clumps) -> None:
    good = Scenario(candidate=Version(errors=0.0002), clumps=clumps)
    runs = [run(spec(), good, seed) for seed in range(10)]
    assert [each.outcome for each in runs] == ["Promoted"] * 10
    assert not good.breaks(spec())
    bad = Scenario(candidate=Version(errors=0.2), clumps=clumps)
    runs = [run(spec(), bad, seed) for seed in range(10)]
    assert {each.outcome for each in runs} == {"RolledBack"}
    assert bad.breaks(spec())
    whole = summary(runs, should_roll_back=True)
    assert whole.wrong == 0
    assert whole.detection is not None
    assert whole.exposed is not None
    assert 0 < whole.detection.median < 60
    assert all(each.exposed < 2000 and 0 < each.bad <= each.exposed for each in runs)


def test_weights_are_those_of_the_steps_and_time_is_kept() -> None:
    done = run(spec(), Scenario(start=40.0), 1)
    weights = [key for key, _ in itertools.groupby(each.weight for each in done.timeline)]
    assert weights == [0, 5, 50, 100]
    assert done.seconds >= 40 + 2 * 20, "pods start, and two steps hold"


def test_turning_bad_after_the_promotion_is_found_too() -> None:
    late = Scenario(candidate=Version(errors=0.2), bad_after=200.0)
    done = run(spec(), late, 1)
    assert done.outcome == "RolledBack"
    assert [each.phase for each in done.timeline if each.phase in ("Promoted", "RolledBack")] == [
        "Promoted",
        "RolledBack",
    ]
    assert done.detected is not None
    assert 0 < done.detected < 120


def test_pods_that_fail_end_it_before_any_request() -> None:
    done = run(spec(), Scenario(failure="CrashLoop", failure_after=10.0), 1)
    assert (done.outcome, done.reason, done.exposed) == ("Failed", "CrashLoop", 0)


def test_without_prometheus_or_traffic_nothing_is_decided() -> None:
    away = run(spec(), Scenario(outages=((0.0, 1e9),), limit=3000.0), 1)
    assert (away.outcome, away.reason) == (UNDECIDED, "EvidenceMissing")
    silent = run(spec(), Scenario(rate=lambda _: 0.0, limit=3000.0), 1)
    assert (silent.outcome, silent.reason) == (UNDECIDED, "NoRequests")
    short = run(spec(), Scenario(outages=((60.0, 200.0),)), 1)
    assert short.outcome == "Promoted"
    assert short.seconds > 200


def test_what_cannot_be_simulated_is_said() -> None:
    metric = {"name": "own", "query": "x", "max": 1}
    rate = {"name": "rate", "figure": "RequestsPerSecond", "min": 0.001, "interval": "2s"}
    kept, granted = simulated(spec(**releasing(metrics=[metric, rate])))
    assert [each.name for each in kept.release.analysis.metrics] == ["rate"]
    assert any("own" in each for each in granted)
    assert run(kept, Scenario(), 1).outcome == "Promoted"


@pytest.mark.parametrize(
    "release",
    [
        {"smokeTest": {"requests": 5}},
        {"steps": [{"smokeTest": {"requests": 5}}]},
        {"strategy": "Shadow", "shadow": {"percent": 10}},
        {"strategy": "BlueGreen"},
        {"webhooks": [{"name": "w", "url": "http://a/", "when": ["Before"]}]},
        {"notifications": [{"type": "Slack", "receiver": "a"}]},
    ],
)
def test_what_needs_the_world_outside_is_taken_for_granted(release: dict[str, object]) -> None:
    kept, granted = simulated(spec(release=release))
    done = run(kept, Scenario(limit=4000.0), 1)
    assert done.outcome == "Promoted"
    assert bool(granted) is not (release.keys() <= {"notifications"} or release == {"strategy": "BlueGreen"})


def test_worse_than_live_is_bad_inside_the_slo() -> None:
    analysis = {"worseThanLive": {"errorRate": "1%"}}
    lax = spec(slo={"p99": "50ms", "errorRate": "20%"}, release={"analysis": analysis})
    scenario = Scenario(candidate=Version(errors=0.1), live=Version(errors=0.01))
    assert scenario.breaks(lax)
    assert run(lax, scenario, 1).reason == "MoreErrorsThanLive"


def test_the_confidence_limit_is_that_of_clopper_and_pearson() -> None:
    assert upper(0, 100) == pytest.approx(0.0362, abs=1e-4)
    assert upper(5, 100) == pytest.approx(0.1128, abs=1e-4)
    assert upper(3, 3) == 1.0


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = tmp_path / "model.yaml"
    shown = spec().model_dump(mode="json", by_alias=True, exclude_defaults=True)
    policy.write_text(yaml.safe_dump({"kind": "ModelDeployment", "metadata": {"name": "m"}, "spec": shown}))
    traffic = tmp_path / "traffic.csv"
    traffic.write_text("time,rate\n0,50\n60,80\n")
    base = ["simulate", "-f", str(policy), "--traffic", str(traffic), "--errors", "10%"]
    assert main.main([*base, "--runs", "5", "-o", "json"]) == main.OK
    found = json.loads(capsys.readouterr().out)
    assert found["summary"]["shouldRollBack"] is True
    assert found["summary"]["outcomes"] == {"RolledBack": 5}
    assert len(found["runs"]) == 5
    assert main.main(base) == main.OK
    text = capsys.readouterr().out
    assert "verdict            RolledBack (ErrorRateTooHigh)" in text
    assert "+0s" in text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--runs", "0"], "--runs must be"),
        (["--traffic", "/nowhere.csv"], "No such file"),
        (["--outage", "5m"], "write two times with a dash"),
    ],
)
def test_wrong_options_are_told(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    policy = str(ROOT / "docs/reference/every-field.yaml")
    assert main.main(["simulate", "-f", policy, *arguments]) == main.FAILED
    assert says in capsys.readouterr().err


def test_a_wrong_unit_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main.main(["simulate", "-f", "x", "--errors", "5"])
    assert caught.value.code == main.USAGE
    assert "percent sign" in capsys.readouterr().err
