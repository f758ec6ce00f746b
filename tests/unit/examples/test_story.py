"""The report's numbers, from a run whose numbers are known."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from rich.console import Console

from fraud import page, picture
from fraud.records import Record
from fraud.story import Story, expectations, release, result_line, snapshot

START = 1_000_000.0
Run = tuple[Story, list[Record]]
VERSIONS = ("v1", "v2", "v3", "v4", "v5")


def test_a_promotion_in_figures(run: Run) -> None:
    two = release(*run, "v2")
    assert (two.outcome, two.reason, two.failed_anywhere) == ("Promoted", "AllStepsPassed", 0)
    assert two.seconds == pytest.approx(65, abs=0.1)
    assert two.during.requests == pytest.approx(65 * 200, abs=2)
    assert two.before.requests == two.after.requests == pytest.approx(20 * 200, abs=2)
    assert math.isnan(two.detect_seconds)


def test_a_rollback_in_figures(run: Run) -> None:
    story, records = run
    three = release(story, records, "v3")
    assert three.outcome == "RolledBack"
    own = [r for r in records if r.version == "v3"]
    last = own[-1]
    assert three.served.requests == len(own)
    assert three.exposed_seconds == pytest.approx(last.at + last.latency_ms / 1000 - own[0].at)
    assert three.detect_seconds == pytest.approx(START + 121 - own[0].at)
    assert three.rollback_seconds < 0.6
    assert three.served.p99 > 90


@pytest.mark.parametrize(("version", "reason"), [("v4", "ModelLoadFailed"), ("v5", "DigestMismatch")])
def test_a_rejection_in_figures(run: Run, version: str, reason: str) -> None:
    item = release(*run, version)
    assert (item.outcome, item.reason, item.served.requests) == ("Failed", reason, 0)
    assert math.isnan(item.exposed_seconds)


def test_all_promises_are_kept_and_each_can_be_broken(run: Run) -> None:
    story, records = run
    good = {v: release(story, records, v) for v in VERSIONS}
    assert [item.kept for item in expectations(good)] == [True] * 5

    at = story.applied["v2"] + 30
    failed = [*records, Record(at, 3.0, 503, "", "", "", "keepalive", 1)]
    leaked = [*failed, Record(at, 3.0, 200, "", "v5", "", "keepalive", 1)]
    bad = {v: release(story, leaked, v) for v in VERSIONS}
    assert [item.kept for item in expectations(bad)] == [True, False, True, True, False]

    unfinished = Story(story.snapshots[:6], story.applied)
    early = {v: release(unfinished, records, v) for v in VERSIONS}
    assert [item.kept for item in expectations(early)] == [False, True, False, False, False]


def test_moments_are_in_order_and_the_rollback_is_when_traffic_left(run: Run) -> None:
    story, _ = run
    moments = story.moments()
    assert [m.at for m in moments] == sorted(m.at for m in moments)
    decisions = [m.label for m in moments if m.kind not in ("applied", "weight")]
    assert decisions == ["v2 promoted", "v3 rolled back", "v4 rejected", "v5 rejected"]
    assert [m.label for m in moments if m.kind == "weight"] == ["v2 5 %", "v2 25 %", "v2 50 %", "v2 100 %", "v3 5 %"]
    gone = next(m.at for m in moments if m.kind == "rolledback")
    assert gone == next(s.at for s in story.snapshots if s.phase == "RollingBack")


def test_the_result_line_can_be_parsed(run: Run) -> None:
    story, records = run
    line = result_line({v: release(story, records, v) for v in VERSIONS}, records, {"setup_s": 41.0})
    assert line.startswith("RESULT ")
    values = dict(part.split("=") for part in line.split()[1:])
    assert values["v2_failed"] == values["v4_requests"] == values["v5_requests"] == "0"
    assert float(values["v3_first_to_last_s"]) < 8
    assert values["setup_s"] == "41.00"


def test_the_status_of_a_model_deployment_is_read() -> None:
    resource = {
        "metadata": {"generation": 3},
        "status": {
            "phase": "Canary",
            "weight": "25%",
            "live": {"version": "v1"},
            "candidate": {"version": "v2"},
            "metrics": {"p99": "21ms", "errorRate": "0.02%"},
            "lastRelease": {"version": "v1", "outcome": "Promoted", "finishedAt": "2026-11-01T00:00:00Z"},
            "conditions": [{"type": "Ready", "status": "True", "observedGeneration": 2}],
        },
    }
    seen = snapshot(resource, 5.0)
    assert (seen.phase, seen.live, seen.candidate, seen.weight, seen.p99) == ("Canary", "v1", "v2", 25, "21ms")
    assert seen.ready is False, "the condition is about an older generation"
    assert snapshot({}, 1.0).weight == 0


def test_picture_and_page_stand_on_their_own(run: Run, tmp_path: Path) -> None:
    story, records = run
    figure = picture.draw(story, records, "A run")
    file = tmp_path / "timeline.png"
    picture.save_png(figure, file)
    assert file.read_bytes()[:4] == b"\x89PNG"
    releases = {v: release(story, records, v) for v in VERSIONS}
    kept = expectations(releases)
    text = page.page("A run", picture.svg(figure), story, records, releases, kept)
    assert "<svg" in text
    assert "12 of 60 requests slower than 50 ms" in text
    for outside in ("<script", "<link", "src=", 'href="http'):
        assert outside not in text


def test_labels_in_the_picture_do_not_overlap(run: Run) -> None:
    figure = picture.draw(*run, "A run")
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    boxes = [text.get_window_extent(renderer) for text in figure.axes[0].texts if text.get_text().strip()]
    assert len(boxes) >= 8
    for index, one in enumerate(boxes):
        assert 0 <= one.x0 < one.x1 <= figure.bbox.x1
        for other in boxes[index + 1 :]:
            assert not (one.x0 < other.x1 and other.x0 < one.x1 and one.y0 < other.y1 and other.y0 < one.y1)


def test_tables_print_the_outcomes(run: Run) -> None:
    story, records = run
    releases = {v: release(story, records, v) for v in VERSIONS}
    console = Console(width=150, record=True, quiet=False, force_terminal=False)
    with console.capture() as captured:
        page.print_tables(console, releases, expectations(releases))
    text = captured.get()
    for word in ("RolledBack", "DigestMismatch", "ModelLoadFailed", "v2 promotes itself", "kept"):
        assert word in text
