"""What `serinus freeze` and `unfreeze` write, without a cluster."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serinus.cli import main, view
from serinus.cli.freezing import Request, frozen, moment, place, sentence, thawed
from serinus.cli.picture import CliError, UsageError
from serinus.release.freeze import Freeze
from unit.cli.test_cli import picture
from unit.release.world import spec, with_live

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
LATER = NOW + timedelta(days=3)


def test_a_freeze_of_everything() -> None:
    made = frozen(None, Request(None, "Black  Friday ", LATER), NOW)
    assert made == {"reason": "Black Friday", "until": "2026-11-30T12:00:00+00:00"}
    assert sentence(made) == "releases are frozen in all namespaces: Black Friday; until 2026-11-30 12:00 UTC"
    assert sentence(None) == "releases are not frozen"


def test_a_second_freeze_is_added_to_the_first() -> None:
    first = frozen(None, Request("shop", "stock-taking", LATER), NOW)
    both = frozen(first, Request("pay", "audit", NOW + timedelta(days=1)), NOW)
    assert both["reason"] == "stock-taking; audit"
    assert Freeze.of(both).namespaces == {"shop", "pay"}
    assert Freeze.of(both).until == LATER, "the shop is not set free earlier"
    assert frozen(both, Request("pay", "audit", LATER), NOW) == both, "saying it again changes nothing"
    assert "namespaces" not in frozen(both, Request(None, "audit"), NOW)


def test_a_freeze_that_is_over_leaves_nothing_behind() -> None:
    old = frozen(None, Request(None, "Black Friday", LATER), NOW)
    assert frozen(old, Request("pay", "audit"), LATER) == {"reason": "audit", "namespaces": "pay"}


moments = st.none() | st.integers(-100, 100).map(lambda hours: NOW + timedelta(hours=hours))
requests = st.builds(
    Request,
    st.sampled_from([None, "shop", "pay", "team"]),
    st.sampled_from(["audit", "Black Friday", "x" * 150, "y" * 150]),
    st.none() | st.integers(1, 100).map(lambda hours: NOW + timedelta(hours=hours)),
)
stored = st.none() | st.fixed_dictionaries(
    {},
    optional={
        "reason": st.sampled_from(["", "stock-taking", "z" * 300]),
        "until": moments.map(lambda at: at.isoformat() if at else "Monday"),
        "namespaces": st.sampled_from(["", "shop", "shop, pay", "other"]),
    },
)


@settings(deadline=None, max_examples=300)
@given(stored, requests, st.sampled_from(["shop", "pay", "team", "other"]), moments)
def test_freezing_never_sets_anything_free(
    data: dict[str, str] | None, wanted: Request, namespace: str, at: datetime | None
) -> None:
    made = frozen(data, wanted, NOW)
    when = max(at or LATER, NOW)
    held = data is not None and Freeze.of(data).holds(namespace, NOW) and Freeze.of(data).holds(namespace, when)
    asked = wanted.namespace in (None, namespace) and (wanted.until is None or when < wanted.until)
    if held or asked:
        assert Freeze.of(made).holds(namespace, when)
    assert wanted.reason in made["reason"]
    assert len(made["reason"]) <= 200
    assert thawed(made, None) is None


def test_unfreezing_one_of_two() -> None:
    data = {"reason": "audit", "namespaces": "shop,pay", "by": "alice"}
    assert thawed(data, "shop") == {**data, "namespaces": "pay"}
    assert thawed({**data, "namespaces": "shop"}, "shop") is None
    assert thawed(data, "team") == {**data, "namespaces": "pay,shop"}
    with pytest.raises(CliError, match="unfreeze -A ends it"):
        thawed({"reason": "audit"}, "shop")


def test_times_as_people_write_them() -> None:
    assert moment("36h", NOW) == NOW + timedelta(hours=36)
    assert moment("2026-12-01T08:00:00+01:00", NOW) == datetime(2026, 12, 1, 8, tzinfo=timezone(timedelta(hours=1)))
    for text, said in (
        ("Monday", "with its offset"),
        ("2026-12-01", "with its offset"),
        ("2026-12-01T08:00", "with its offset"),
        ("2026-11-01T08:00:00Z", "over already"),
    ):
        with pytest.raises(UsageError, match=said):
            moment(text, NOW)


@pytest.mark.parametrize(("arguments", "found"), [(["-n", "shop"], "shop"), (["-A"], None)])
def test_where_is_always_said(arguments: list[str], found: str | None) -> None:
    grammar = main.parser()
    assert place(grammar.parse_args(["freeze", "--reason", "x", *arguments])) == found
    assert place(grammar.parse_args(["unfreeze", *arguments])) == found
    for wrong in (["unfreeze"], ["unfreeze", "-A", "-n", "shop"]):
        with pytest.raises(UsageError, match="say where"):
            place(grammar.parse_args(wrong))


@pytest.mark.parametrize("reason", ["", "  ", "x" * 201])
def test_a_reason_is_needed(reason: str) -> None:
    with pytest.raises(UsageError, match="at most 200"):
        frozen(None, Request(None, reason), NOW)


def test_status_shows_a_freeze_and_what_a_version_waits_for() -> None:
    import dataclasses

    world = with_live()
    seen = dataclasses.replace(picture(world), frozen="releases are frozen in all namespaces: Black Friday")
    assert "frozen   releases are frozen in all namespaces: Black Friday" in view.lines(seen)
    world.frozen = "Black Friday"
    world.apply(spec("v2"))
    world.tick()
    assert "waits   Frozen: releases are frozen: Black Friday" in view.lines(picture(world))
