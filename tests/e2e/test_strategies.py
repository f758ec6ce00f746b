"""Pins, sticky users, previews and experiments on a real node, as users at the gateway see them."""

from __future__ import annotations

import math
from typing import Any

import pytest

from support.crowd import User, failures, shares, visit
from support.eventually import eventually
from support.releases import Load, Operator, Release, failed, go_live

pytestmark = pytest.mark.needs("pods", "gateway", "prometheus")

OWNER = "model_namespace, model_deployment, revision"
USERS = 1000


def route(release: Release, *flags: dict[str, Any]) -> dict[str, Any]:
    namespace, gateway = release.cluster.gateway
    return {
        "parentRefs": [{"name": gateway, "namespace": namespace}],
        "hostnames": [release.host],
        "flags": list(flags),
    }


def flag(name: str, value: str, version: str) -> dict[str, Any]:
    return {"name": name, "match": [{"headers": [{"name": "X-Group", "value": value}]}], "version": version}


def at_weight(release: Release, weight: int) -> dict[str, Any]:
    """The status once the gateway serves this weight."""
    return release.wait(lambda s: s.get("release", {}).get("weight") == weight and "servingSince" in s["release"])


def check_share(seen: int, share: float) -> None:
    """A draw of `USERS` that a fair one misses once in 15,000 times."""
    spread = math.sqrt(USERS * share * (1 - share))
    assert abs(seen - USERS * share) <= 4 * spread, f"{seen} of {USERS} users where {share:.0%} were to be"


def test_sticky_users_and_pins(release: Release, operator: Operator, load: Load) -> None:
    """1,000 users come back 20 times: the candidate has its share of them, a step moves a part, a roll-back all."""
    users = route(release, flag("testers", "testers", "candidate"), flag("staff", "staff", "live"))
    go_live(release, load, route=users)
    steps = [
        {"weight": 20, "hold": "0", "minRequests": 1, "approval": True},
        {"weight": 50, "hold": "10m", "minRequests": 1},
    ]
    plan = {"steps": steps, "sticky": {"cookie": {"name": "serinus", "ttl": "1h"}}}
    release.apply("v2", route=users, release=plan)
    status = at_weight(release, 20)
    live, candidate = status["live"]["revision"], status["candidate"]["revision"]
    url = release.cluster.gateway_url

    def come(crowd: list[User], times: int) -> dict[str, int]:
        visit(url, release.host, crowd, times)
        assert failures(crowd) == {}
        return dict(shares(crowd))

    def settled() -> None:
        """Each proxy has the rules of this weight: someone without a cookie is given one."""
        user = User()
        come([user], 1)
        assert user.cookies["serinus"].startswith(candidate)

    eventually(settled, 30)
    crowd = [User() for _ in range(USERS)]
    come(crowd, 1)
    first = come(crowd, 20)
    print(f"20 %, {USERS} users, 20 times each: {first}")
    assert set(first) == {live, candidate}, "nobody saw both"
    check_share(first[candidate], 0.2)
    chosen = [user for user in crowd if candidate in user.served]

    testers, staff = User({"X-Group": "testers"}), User({"X-Group": "staff"}, dict(chosen[0].cookies))
    come([testers, staff], 20)
    assert set(testers.served) == {candidate}
    assert set(staff.served) == {live}, "a pin wins over a cookie"

    release.kubectl("annotate", "mdep", "fraud-scorer", "serving.serinus.dev/approve=1", "--overwrite")
    at_weight(release, 50)

    def moved() -> None:
        second = come(crowd, 1)
        assert second[candidate] > first[candidate], second

    eventually(moved, 30)
    second = come(crowd, 20)
    print(f"50 %: {second}")
    assert set(second) == {live, candidate}
    check_share(second[candidate], 0.5)
    assert all(set(user.served) == {candidate} for user in chosen), "who was on the candidate stays there"

    release.kubectl("annotate", "mdep", "fraud-scorer", "serving.serinus.dev/abort=1", "--overwrite")
    release.wait(lambda s: s.get("release", {}).get("weight") == 0 and "servingSince" in s["release"], 60)
    back = eventually(lambda: only(come(crowd, 1), live), 20)
    print(f"rolled back: {back}")
    come([testers], 20)
    assert set(testers.served) == {live}
    release.wait_ended("v2")
    assert failed(load.stop()) == []


def only(seen: dict[str, int], revision: str) -> dict[str, int]:
    assert seen == {revision: USERS}, seen
    return seen


def test_blue_green_with_a_preview_then_an_experiment(release: Release, operator: Operator, load: Load) -> None:
    """v2 is looked at under its own name, then switched to; v1 comes back by an experiment that it wins."""
    preview_host = f"preview.{release.host}"
    steps = [{"preview": {"hostnames": [preview_host]}, "hold": "0", "approval": True}]
    plan = {"strategy": "BlueGreen", "steps": steps, "rollbackWindow": "0"}
    go_live(release, load)
    old = release.status()["live"]["revision"]
    release.apply("v2", release=plan)
    release.wait(lambda s: s.get("release", {}).get("reason") == "WaitingForApproval")
    new = release.status()["candidate"]["revision"]
    url = release.cluster.gateway_url

    def served(host: str, revision: str) -> None:
        user = User()
        visit(url, host, [user], 10)
        assert user.served == {revision: 10}, (user.served, user.failures)

    eventually(lambda: served(preview_host, new), 30)
    served(release.host, old)
    service = release.get("service", "fraud-scorer-preview")
    assert service is not None
    assert service["spec"]["selector"]["serving.serinus.dev/revision"] == new
    with release.watch() as watch:
        release.kubectl("annotate", "mdep", "fraud-scorer", "serving.serinus.dev/approve=1", "--overwrite")
        release.wait_live("v2")
    seen = [weights.get(new, 0) for weights in watch.routes]
    assert sorted(set(seen)) == [0, 100], "one switch"
    eventually(lambda: served(release.host, new), 30)

    trials = f"sum by ({OWNER}) (serinus_requests_total)"
    wins = f'{trials[:-1]}{{revision="{old}"}}) or floor(0.5 * {trials})'
    metric = {"successes": wins, "trials": trials, "interval": "2s"}
    ab = {"metric": metric, "baseline": "50%", "minimumEffect": "20%", "maxDuration": "5m", "onSuccess": "Promote"}
    release.apply("v1", release={"strategy": "AB", "steps": [{"experiment": ab}], "rollbackWindow": "0"})
    status = release.wait_live("v1")
    experiment = status["lastRelease"]["experiment"]
    print(experiment)
    assert experiment["recommendation"] == "Promote"
    assert experiment["sampleSize"] == {"live": 93, "candidate": 93}
    assert experiment["candidate"]["trials"] > 0
    assert failed(load.stop()) == []
