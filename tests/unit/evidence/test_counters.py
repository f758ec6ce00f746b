"""Counters through restarts, gaps and lost pods."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serinus.api.shown import Counts
from serinus.evidence.book import Book
from serinus.evidence.counters import Ledger, Series, Snapshot, increase

A: Series = ("ns", "fraud", "rev1", "pod-a")
B: Series = ("ns", "fraud", "rev1", "pod-b")
OWNER = ("ns", "fraud")


def snapshot(time: float, **requests: float) -> Snapshot:
    names = {"a": A, "b": B}
    return Snapshot(time, {"requests": {names[name]: value for name, value in requests.items()}})


def test_what_happened_before_the_first_look_does_not_count() -> None:
    ledger = Ledger()
    ledger.add(snapshot(0, a=500))
    ledger.add(snapshot(2, a=510))
    assert ledger.totals(OWNER) == {"rev1": Counts(requests=10)}


def test_a_new_pod_counts_from_its_first_request() -> None:
    ledger = Ledger()
    ledger.add(snapshot(0, a=500))
    ledger.add(snapshot(2, a=500, b=7))
    assert ledger.totals(OWNER)["rev1"].requests == 7


def test_a_restart_and_a_gap_lose_nothing() -> None:
    ledger = Ledger()
    ledger.add(snapshot(0, a=100))
    ledger.add(snapshot(2, a=120))
    ledger.add(snapshot(4))
    ledger.add(snapshot(6, a=5))
    assert ledger.totals(OWNER)["rev1"].requests == 25


def test_an_empty_first_answer_does_not_make_old_pods_new() -> None:
    ledger = Ledger()
    ledger.add(snapshot(0))
    ledger.add(snapshot(2, a=10_000))
    assert ledger.totals(OWNER)["rev1"].requests == 0


def test_nan_is_no_data() -> None:
    ledger = Ledger()
    ledger.add(snapshot(0, a=1))
    ledger.add(snapshot(2, a=float("nan")))
    ledger.add(snapshot(4, a=3))
    assert ledger.totals(OWNER)["rev1"].requests == 2


def test_memory_is_bounded() -> None:
    ledger = Ledger(forget_after=10)
    ledger.add(snapshot(0, a=1))
    ledger.add(snapshot(5, a=1, b=2))
    ledger.add(snapshot(20, b=3))
    assert ledger.totals(OWNER)["rev1"].requests == 3
    ledger.add(snapshot(40))
    assert ledger.totals(OWNER) == {}


@given(st.lists(st.tuples(st.integers(0, 50), st.booleans()), min_size=1, max_size=40))
def test_any_history_of_restarts_is_added_up(history: list[tuple[int, bool]]) -> None:
    ledger = Ledger()
    ledger.add(snapshot(0, a=0))
    value = expected = 0
    for time, (served, restarted) in enumerate(history, start=1):
        # A reset is visible only if the counter falls.
        if restarted and served < value:
            value = served
        else:
            value += served
        expected += served
        ledger.add(snapshot(time, a=value))
    assert ledger.totals(OWNER)["rev1"].requests == expected


def test_book_hands_out_each_request_once() -> None:
    book = Book()
    assert not book.read(OWNER)[0].available
    book.take(snapshot(0, a=0))
    book.take(snapshot(2, a=10))
    evidence, mark = book.read(OWNER)
    assert evidence.counts["rev1"].requests == 10
    assert book.read(OWNER)[0].counts["rev1"].requests == 10, "nothing was stored: it is still to come"
    book.settle(OWNER, mark)
    assert book.read(OWNER)[0].counts["rev1"].requests == 0
    book.fail("down")
    assert book.read(OWNER)[0].message == "down"
    book.take(snapshot(60, a=40))
    assert book.read(OWNER)[0].counts["rev1"].requests == 30


def test_increase_never_goes_below_zero() -> None:
    assert increase({"r": Counts(requests=1)}, {"r": Counts(requests=5)}) == {"r": Counts()}


def test_a_block_comes_with_what_its_pod_answered_in_the_look_before() -> None:
    book = Book()

    def look(time: float, **requests: float) -> tuple[tuple[Counts, ...], tuple[Counts, ...]]:
        book.take(snapshot(time, **requests))
        evidence, mark = book.read(OWNER)
        assert book.read(OWNER)[0] == evidence
        book.settle(OWNER, mark)
        return evidence.blocks.get("rev1", ()), evidence.before.get("rev1", ())

    none, five, three = Counts(), Counts(requests=5), Counts(requests=3)
    look(0, a=100)
    assert look(2, a=105) == ((five,), (none,))
    assert look(4, a=105, b=3) == ((three,), (none,))
    # A look without requests tells nothing: the one before it is still the last that does.
    assert look(6, a=108, b=8) == ((three, five), (five, three))
    book.forget(OWNER)
    assert book.read(OWNER)[0].before == {"rev1": (none, none)}
