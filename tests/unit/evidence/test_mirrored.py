"""What joiners told, through restarts of the joiner, of the operator, and decisions that were not stored."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serinus.evidence.mirrored import ShadowBook, ShadowSnapshot, count, figure

OWNER = ("ns", "fraud")


def told(instance: str = "i", revision: str = "b", **counts: float) -> ShadowSnapshot:
    series = ("ns", "fraud", revision, instance)
    figures = {("ns", "fraud", revision): {"psi": 0.5, "pods_live": 2.0, "pods_candidate": 1.0}}
    return ShadowSnapshot({(series, ("pairs", name)): value for name, value in counts.items()}, figures)


def begun() -> ShadowBook:
    book = ShadowBook()
    book.take(ShadowSnapshot(), 0.0)
    return book


def test_a_joiner_that_appears_counts_from_zero_and_a_restart_loses_nothing() -> None:
    book = begun()
    book.take(told(agreed=10), 1.0)
    assert book.read(OWNER)["b"].outcomes == {"agreed": 10}
    book.settle(OWNER)
    book.take(told(agreed=4), 2.0)
    book.take(told("another", agreed=3), 3.0)
    assert book.read(OWNER)["b"].outcomes == {"agreed": 7}


def test_an_operator_that_starts_anew_counts_from_what_is_there() -> None:
    book = ShadowBook()
    book.take(told(agreed=1000), 0.0)
    book.take(told(agreed=1005), 1.0)
    assert book.read(OWNER)["b"].outcomes == {"agreed": 5}


def test_what_was_not_stored_is_told_again() -> None:
    book = begun()
    book.take(told(agreed=10), 1.0)
    book.read(OWNER)
    book.take(told(agreed=15), 2.0)
    assert book.read(OWNER)["b"].outcomes == {"agreed": 15}
    book.settle(OWNER)
    assert book.read(OWNER)["b"].outcomes == {"agreed": 0}


@given(st.lists(st.tuples(st.integers(0, 50), st.booleans(), st.booleans()), max_size=40))
def test_every_pair_is_handed_out_once(steps: list[tuple[int, bool, bool]]) -> None:
    book, value, made, seen = begun(), 0, 0, 0
    for grown, restarted, stored in steps:
        value = grown if restarted and grown < value else value + grown
        made += grown
        book.take(told(agreed=value), 1.0)
        fresh = book.read(OWNER)["b"].outcomes["agreed"]
        if stored:
            book.settle(OWNER)
            seen += fresh
    assert seen + (book.read(OWNER)["b"].outcomes["agreed"] if steps else 0) == made


def test_figures_and_pods_by_name() -> None:
    book = begun()
    book.take(told(agreed=1), 1.0)
    found = book.read(OWNER)["b"]
    assert (found.figures, found.pods) == ({"psi": 0.5}, {"live": 2, "candidate": 1})
    assert figure({"__name__": "serinus_shadow_psi", "kind": "input"}) == "input_psi"
    assert figure({"__name__": "serinus_shadow_ks", "kind": "score"}) == "ks"
    assert figure({"__name__": "serinus_shadow_latency_ratio"}) == "latency_ratio"
    assert figure({"__name__": "serinus_shadow_pods", "side": "live"}) == "pods_live"
    assert count({"reason": "lost"}) == ("unpaired", "lost")


def test_old_joiners_are_forgotten() -> None:
    book = begun()
    book.take(told(agreed=1), 1.0)
    book.take(ShadowSnapshot(), 5000.0)
    assert book.read(OWNER) == {}


def test_one_who_releases_every_half_an_hour_for_a_week_is_not_remembered_for_a_week() -> None:
    book = begun()
    for number in range(2 * 24 * 7):
        book.take(told(f"joiner-{number}", f"revision-{number}", agreed=10), 1800.0 * number)
        assert book.read(OWNER)[f"revision-{number}"].outcomes == {"agreed": 10}
        book.settle(OWNER)
        assert len(book.read(OWNER)) <= 4, "of the last hour"


def test_a_candidate_that_is_tried_again_later_counts_from_zero() -> None:
    book = begun()
    book.take(told("first", "b", agreed=100), 1.0)
    book.read(OWNER)
    book.settle(OWNER)
    book.take(told("other", "c", agreed=1), 4000.0)
    book.read(OWNER)
    book.settle(OWNER)
    book.take(told("second", "b", agreed=7), 4002.0)
    assert book.read(OWNER)["b"].outcomes == {"agreed": 7}
