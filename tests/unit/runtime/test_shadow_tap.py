"""The tap: a ring with cursors, who may read it, what it tells, and two servers with a joiner over real HTTP."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serinus_runtime.about import About, Rule
from serinus_runtime.commands.join import read
from serinus_runtime.config import Config
from serinus_runtime.engine import Signature, TensorSpec
from serinus_runtime.failures import FailureError
from serinus_runtime.predictionlog import REDACTED, Prediction
from serinus_runtime.server import load_model
from serinus_runtime.shadow.admission import Admission, default_readers, plain
from serinus_runtime.shadow.front import COPIES_SECONDS
from serinus_runtime.shadow.joiner import Joiner, Settings
from serinus_runtime.shadow.reading import Readers
from serinus_runtime.shadow.records import ALL, Page, Record, Told
from serinus_runtime.shadow.tap import IDLE_SECONDS, PAGE, Tap
from serinus_runtime.shadow.telling import Teller, Wanted
from serinus_runtime.shadow.understanding import understood
from unit.runtime import support
from unit.runtime.support import WAIT, Live, request

SIGNATURE = Signature(
    (TensorSpec("features", "FP32", (-1, 3)), TensorSpec("category", "BYTES", (-1, 1))),
    (TensorSpec("label", "INT64", (-1,)), TensorSpec("probabilities", "FP32", (-1, 2))),
    batched=True,
)
ABOUT = About({"features": ("amount", "age", "hour")}, Rule("probabilities", None, (("block", 0.8),), "allow"))
PAGES = msgspec.msgpack.Decoder(Page)


def prediction(key: int = 0, score: float = 0.9, code: int = 200) -> Prediction:
    inputs = {
        "features": np.array([[1.5, 2.5, float(key)]], dtype=np.float32),
        "category": np.array([["toys"]], dtype=object),
    }
    outputs = [np.array([1]), np.array([[1 - score, score]], dtype=np.float32)]
    return Prediction(
        code, f"id-{key}".encode(), 1.0, 1.0, 1.0, 1.004, 1.005, 1, inputs, ("label", "probabilities"), outputs
    )  # fmt: skip


def told(found: Prediction) -> Told:
    return Told(found.request_id.decode(), found.code, 1.0, 1, "", [], [], None)


def record_of(teller: Teller, found: Prediction, wanted: Wanted) -> Record:
    """What the joiner makes of what the pod tells, over the wire."""
    wire = msgspec.msgpack.encode(teller.tell(found, wanted))
    return understood(msgspec.msgpack.decode(wire, type=Told), teller.scoring)


class Watched:
    """A tap and what it was attached to."""

    def __init__(self, **bounds: int) -> None:
        self.attached: list[bool] = []
        self.tap = Tap("rev", ("a",), lambda add: self.attached.append(add is not None), **bounds)


def test_nothing_is_kept_before_somebody_reads_nor_after_the_last_has_gone() -> None:
    watched = Watched()
    watched.tap.sweep(0.0)
    assert watched.attached == []
    page = watched.tap.read("", -1, told, 100.0)
    assert (watched.attached, page.records, page.next) == ([True], [], 0)
    watched.tap.sweep(100.0 + IDLE_SECONDS - 0.1)
    watched.tap.read(page.process, page.next, told, 105.0)
    watched.tap.sweep(105.0 + IDLE_SECONDS - 0.1)
    assert watched.attached == [True]
    watched.tap.add(prediction())
    watched.tap.sweep(105.0 + IDLE_SECONDS)
    assert watched.attached == [True, False]
    assert watched.tap.read(page.process, page.next, told, 200.0).lost == 1


@settings(deadline=None)
@given(st.lists(st.integers(0, 400), max_size=12), st.integers(1, 300))
def test_every_prediction_is_read_once_or_counted_as_lost(bursts: list[int], room: int) -> None:
    tap, seen, lost, made = Watched(records=room).tap, [], 0, 0
    page = tap.read("", -1, told, 0.0)
    for burst in bursts:
        for _ in range(burst):
            tap.add(prediction(made))
            made += 1
        while True:
            page = tap.read(page.process, page.next, told, 0.0)
            assert len(page.records) <= PAGE
            lost += page.lost
            seen += [record.id for record in page.records]
            if not page.more:
                break
    assert len(seen) + lost == made
    assert seen == sorted(set(seen), key=lambda key: int(key[3:]))
    assert not made or seen[-1] == f"id-{made - 1}"


def test_a_cursor_of_another_process_begins_anew_and_bytes_are_bounded() -> None:
    tap = Watched(size=300).tap
    tap.read("", -1, told, 0.0)
    for key in range(100):
        tap.add(prediction(key))
    page = tap.read("another", 99_999, told, 0.0)
    assert 1 <= len(page.records) < 20
    assert page.records[-1].id == "id-99"


def test_a_record_has_labels_decisions_scores_and_columns() -> None:
    teller = Teller(SIGNATURE, ABOUT)
    assert teller.columns == ("amount", "age", "hour", "category")
    record = record_of(teller, prediction(7), Wanted(inputs_below=ALL))
    assert record.labels == {"label": [1], "decision": ["block"]}
    assert record.scores == pytest.approx([0.9])
    assert record.inputs == [[1.5, 2.5, 7.0, "toys"]]
    assert record.ms == pytest.approx(5.0)
    assert (record.sample, len(record.hash)) == (None, 32)
    assert record_of(teller, prediction(7), Wanted()).inputs == []


def test_what_is_redacted_leaves_the_pod_in_no_form() -> None:
    teller = Teller(SIGNATURE, ABOUT, frozenset({"hour"}))
    wanted = Wanted(ALL, ALL, frozenset({"amount", "category", "label"}))
    record = record_of(teller, prediction(7), wanted)
    assert record.inputs == [[None, 2.5, None, None]]
    assert record.sample is not None
    assert record.sample.raw == {
        "features": [{"amount": REDACTED, "age": 2.5, "hour": REDACTED}],
        "category": REDACTED,
    }
    assert "label" not in record.labels
    assert teller.hides(prediction().inputs or {}, wanted)


def test_large_tensors_are_told_by_as_many_values_of_the_same_places() -> None:
    big = prediction()
    big.outputs = [np.arange(5000), np.arange(10_000, dtype=np.float32)]
    record = record_of(Teller(None, About()), big, Wanted())
    assert len(record.numbers["probabilities"]) <= 256
    assert record.labels["label"] == list(range(0, 5000, 20))


@settings(deadline=None)
@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=600))
def test_the_joiner_decides_as_the_server_does(scores: list[float]) -> None:
    array = np.array(scores, dtype=np.float32)
    found = prediction()
    found.outputs = [np.zeros(len(scores), dtype=np.int64), np.stack((1 - array, array), axis=1)]
    record = record_of(Teller(SIGNATURE, ABOUT), found, Wanted())
    assert ABOUT.rule is not None
    step = -(-len(scores) // 128)
    assert record.labels["decision"] == ABOUT.rule.decide(array[::step]).tolist()
    assert record.scores == array[::step][:8].tolist()


def test_only_the_addresses_of_the_names_are_admitted_and_looked_up_again() -> None:
    clock, found, asked = [0.0], {"hub": ["10.0.0.1"]}, []

    async def lookup(name: str) -> Sequence[str]:
        asked.append(name)
        return found[name]

    admission = Admission(("hub",), lookup, lambda: clock[0])
    assert not admission.known("10.0.0.1")
    assert asyncio.run(admission.admits("::ffff:10.0.0.1"))
    assert admission.known("10.0.0.1")
    assert not asyncio.run(admission.admits("10.0.0.2"))
    found["hub"] = ["10.0.0.2"]
    clock[0] = 5.0
    assert not admission.known("10.0.0.1")
    assert not asyncio.run(admission.admits("10.0.0.1"))
    assert len(asked) == 3
    assert not asyncio.run(Admission((), lookup).admits("10.0.0.1"))


def test_the_default_reader_is_the_hub_of_this_deployment() -> None:
    assert default_readers("ns", "fraud") == ("fraud-shadow-hub.ns.svc",)
    assert default_readers("", "fraud") == ("127.0.0.1", "::1")
    assert plain("fe80::1%eth0") == "fe80::1"


JOIN = {"SERINUS_JOIN_LIVE": "a", "SERINUS_JOIN_CANDIDATE": "b", "SERINUS_JOIN_PODS": "pods.ns.svc:8082,[::1]:9"}


def test_the_joiners_environment() -> None:
    found = read({**JOIN, "SERINUS_JOIN_REDACT": "name, age", "SERINUS_JOIN_TOLERANCE": "0.01"})
    assert found.targets == (("pods.ns.svc", 8082), ("::1", 9))
    assert (found.redact, found.tolerance, found.samples) == (("name", "age"), 0.01, 0)
    assert read(JOIN).tolerance is None


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"SERINUS_JOIN_LIVE": ""}, "SERINUS_JOIN_LIVE is empty"),
        ({"SERINUS_JOIN_CANDIDATE": "a"}, "the same revision"),
        ({"SERINUS_JOIN_PODS": "pods"}, "write host:port"),
        ({"SERINUS_JOIN_TOLERANCE": "1%"}, "write a number"),
        ({"SERINUS_JOIN_WINDOW": "30"}, "is not a duration"),
    ],
)
def test_a_wrong_environment_says_what_to_write(wrong: dict[str, str], said: str) -> None:
    with pytest.raises(FailureError, match=said):
        read({**JOIN, **wrong})


def scored(directory: Path, revision: str, **more: Any) -> Live:
    """A server of the scorer model, whose tap this machine may read."""
    loaded = load_model(Config(model_dir=support.scorer_model(directory)))
    return Live(loaded, revision=revision, namespace="ns", deployment="fraud", **{"tap": "127.0.0.1", **more})


def ask(live: Live, key: str, amount: float) -> int:
    body = {
        "inputs": [
            {"name": "features", "shape": [1, 3], "datatype": "FP32", "data": [amount, 0.0, 0.0]},
            {"name": "category", "shape": [1, 1], "datatype": "BYTES", "data": ["toys"]},
        ]
    }
    headers = {"x-request-id": key}
    return request(live.port, "POST", "/v2/models/model/infer", json.dumps(body).encode(), headers)[0]


def join(ports: Sequence[int], until: Any, **more: Any) -> Joiner:
    """Reads the taps of this machine until the joiner has what it should."""

    async def work() -> Joiner:
        fields = {"live": "a", "candidate": "b", "targets": tuple(("127.0.0.1", port) for port in ports), **more}
        joiner = Joiner(Settings(**fields))
        readers = Readers(joiner._settings.targets, joiner.asking, joiner.take)
        reading = asyncio.create_task(readers.run())
        try:
            async with asyncio.timeout(WAIT):
                while not until(joiner):
                    assert not reading.done()
                    await asyncio.sleep(0.01)
        finally:
            reading.cancel()
        return joiner

    return asyncio.run(work())


def test_two_servers_are_joined_over_http(tmp_path: Path) -> None:
    with scored(tmp_path / "a", "a") as live, scored(tmp_path / "b", "b") as candidate:
        ports = [live.server.metrics_port, candidate.server.metrics_port]
        asked = threading.Event()

        def until(joiner: Joiner) -> bool:
            # Nothing is kept before both taps are read.
            if not asked.is_set() and set(joiner.pods().values()) == {1}:
                for key in range(60):
                    assert ask(live, f"r{key}", 0.1) == 200
                    assert ask(candidate, f"r{key}", 0.9 if key < 6 else 0.1) == 200
                assert ask(live, "alone", 0.1) == 200
                asked.set()
            return joiner.tally.pairs == 60 and len(joiner.pairing) == 1

        joiner = join(ports, until, samples=5, redact=("age",))
        outcomes = {outcome.value: count for outcome, count in joiner.tally.outcomes.items()}
        assert outcomes == {"agreed": 54, "disagreed": 6}
        assert joiner.tally.turns == {"decision: allow -> block": 6, "label: 0 -> 1": 6}
        assert {bad.id for bad in joiner.tally.worst} == {f"r{key}" for key in range(6)}
        assert len(joiner.tally.samples) == 5
        sample = joiner.tally.samples[0].live
        assert sample is not None
        assert sample.raw["features"][0]["age"] == REDACTED
        assert (live.server.state.tap is None, candidate.server.state.tap is None) == (False, False)


_CODE = """
import numpy as np

def preprocess(inputs):
    numbers = np.array([[float(value.strip("$"))] for value in inputs["amount"].ravel()])
    return {"x": np.hstack([numbers, inputs["rest"]])}
"""


@pytest.mark.parametrize(
    ("redact", "raw", "prepared"),
    [
        ("", {"amount": [["$12.5"]], "rest": [[1.0, 2.0]]}, {"x": [[12.5, 1.0, 2.0]]}),
        # What is made of a field that is redacted is redacted with it, whatever its name.
        ("amount", {"amount": REDACTED, "rest": [[1.0, 2.0]]}, {"x": REDACTED}),
        # A field may have its name only after preprocessing.
        ("x", {"amount": [["$12.5"]], "rest": [[1.0, 2.0]]}, {"x": REDACTED}),
    ],
)
@pytest.mark.parametrize("by_the_pod", [False, True])
def test_samples_are_told_as_preprocessing_made_them(
    tmp_path: Path, redact: str, raw: dict[str, Any], prepared: dict[str, Any], by_the_pod: bool
) -> None:
    directory = support.sum_model(tmp_path / "m")
    (directory / "processing.py").write_text(_CODE)
    spec = [
        {"name": "amount", "datatype": "BYTES", "shape": [-1, 1]},
        {"name": "rest", "datatype": "FP64", "shape": [-1, 2]},
    ]
    (directory / "model.json").write_text(json.dumps({"preprocess": "processing.py", "processing": {"inputs": spec}}))
    config = Config(model_dir=directory, allow_python=True, engine_timeout=WAIT)
    kept = {"prediction_log_redact": frozenset({redact})} if by_the_pod and redact else {}
    with Live(load_model(config), tap="127.0.0.1", **kept) as live:
        wanted = f"/tap?samples={ALL}&redact={'' if by_the_pod else redact}"
        begun = PAGES.decode(request(live.server.metrics_port, "GET", wanted)[2])
        inputs = [
            {"name": "amount", "shape": [1, 1], "datatype": "BYTES", "data": ["$12.5"]},
            {"name": "rest", "shape": [1, 2], "datatype": "FP64", "data": [1.0, 2.0]},
        ]
        body = json.dumps({"inputs": inputs}).encode()
        assert request(live.port, "POST", "/v2/models/model/infer", body)[0] == 200
        cursor = f"&process={begun.process}&after={begun.next}"
        [record] = PAGES.decode(request(live.server.metrics_port, "GET", wanted + cursor)[2]).records
    assert record.sample is not None
    assert (record.sample.raw, record.sample.prepared) == (raw, prepared)


def test_what_preprocessing_made_is_redacted_by_column_and_by_step() -> None:
    teller = Teller(SIGNATURE, ABOUT, frozenset({"hour"}))
    made = {"features": np.array([[1.5, 2.5, 7.0]]), "clean.hour": np.array([7.0]), "clean.age": np.array([2.5])}
    told = teller.prepared({"document": np.array(["..."], dtype=object)}, made, Wanted())
    assert told == {
        "features": [{"amount": 1.5, "age": 2.5, "hour": REDACTED}],
        "clean.hour": REDACTED,
        "clean.age": [2.5],
    }


def test_copies_are_counted_apart_while_the_joiner_says_so(tmp_path: Path) -> None:
    with scored(tmp_path / "b", "b") as candidate:
        port = candidate.server.metrics_port

        def counted() -> tuple[float, float]:
            found = candidate.metrics()
            mirrored = found.get('serinus_mirrored_requests_total{code="200"}', 0.0)
            return found['serinus_requests_total{code="200"}'], mirrored

        ask(candidate, "user", 0.1)
        assert request(port, "GET", "/tap?candidate=another")[0] == 200
        ask(candidate, "user", 0.1)
        assert counted() == (2, 0)
        assert request(port, "GET", "/tap?candidate=b")[0] == 200
        ask(candidate, "copy", 0.1)
        assert counted() == (2, 1)
        # Nobody says so any more; the sweep looks at the clock.
        tapped = candidate.server.state.tapped
        assert tapped is not None
        tapped.__self__.sweep(time.monotonic() + COPIES_SECONDS)  # type: ignore[attr-defined]
        ask(candidate, "user", 0.1)
        assert counted() == (3, 1)


def test_strangers_are_refused_and_open_nothing(tmp_path: Path) -> None:
    with scored(tmp_path / "a", "a", tap="192.0.2.1") as live:
        status, _, body = request(live.server.metrics_port, "GET", "/tap?after=-1")
        assert (status, json.loads(body)["error"].startswith("127.0.0.1 may not read")) == (403, True)
        assert live.server.state.tap is None
    with scored(tmp_path / "b", "b", tap="off") as live:
        assert request(live.server.metrics_port, "GET", "/tap")[0] == 404


def test_a_wrong_query_says_so(tmp_path: Path) -> None:
    with scored(tmp_path / "a", "a") as live:
        assert request(live.server.metrics_port, "GET", "/tap?after=x")[0] == 400
        status, headers, body = request(live.server.metrics_port, "GET", "/tap?after=0&inputs=99999999999999999")
        assert (status, headers["content-type"]) == (200, "application/msgpack")
        assert PAGES.decode(body).revision == "a"
