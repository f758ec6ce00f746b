"""The report of a release, from statuses that the state machine wrote, read by a real browser."""

from __future__ import annotations

import dataclasses
import re
from datetime import timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from selenium.webdriver.common.by import By

from cluster.errors import ClusterError
from serinus.api.status import ModelDeploymentStatus, Moment
from serinus.cli import figures, nested, report
from serinus.cli.charts import chart
from serinus.release import timeline
from support.browser import chromium
from unit.cli.test_cli import picture
from unit.release.test_composed import EXPERIMENT as TRIED
from unit.release.test_composed import Watched
from unit.release.world import START, World, releasing, settled, spec, stored, with_live

TAIL = {"name": "tail", "figure": "P99", "unit": "s", "max": 0.2, "interval": "4s", "dryRun": True}


def story() -> World:
    """v2 was promoted, v3 rolled back at 50 %, v4 is under way; a name that must not become markup."""
    changes = releasing(metrics=[TAIL])
    world = with_live(**changes)
    world.apply(spec("v2", **changes))
    world.run(lambda w: settled(w) and w.live() == "v2")
    world.apply(spec("v3", **changes))
    world.run(lambda w: w.status.release is not None and w.status.release.weight == 50)
    world.error_rate[world.target().name] = 0.05
    world.run(settled)
    world.apply(spec("v4", **changes))
    world.run(lambda w: w.status.release is not None and w.status.release.weight == 5)
    for _ in range(6):
        world.tick()
    return world


def moments(world: World, version: str) -> list[Moment]:
    return next(each.timeline for each in world.status.history if each.version == version)


def test_a_release_keeps_what_happened_in_it() -> None:
    world = story()
    told = moments(world, "v3")
    assert [each.at for each in told] == sorted(each.at for each in told)
    weights = [each.weight for each in told]
    assert [weight for n, weight in enumerate(weights) if n == 0 or weights[n - 1] != weight] == [0, 5, 50, 0]
    phases = list(dict.fromkeys(each.phase for each in told))
    assert phases == ["Starting", "Canary", "RollingBack", "RolledBack"]
    assert told[-1].reason == "ErrorRateTooHigh"
    assert told[-1].requests == world.status.history[0].requests > 0
    assert max(each.against.get("errors", 0.0) for each in told) >= 1.0, "the test that condemned it"
    assert moments(world, "v2")[-1].phase == "Promoted"
    assert all(each.against.get("errors", 0.0) < 1.0 for each in moments(world, "v2"))


def test_it_is_bounded_and_keeps_every_change_of_weight() -> None:
    base = Moment(at=START, phase="Canary", weight=5)
    long = [
        base.model_copy(update={"at": START + timedelta(seconds=n), "weight": 5 * (1 + n // 100), "step": n // 100})
        for n in range(500)
    ]
    kept: list[Moment] = []
    for each in long:
        kept = timeline.bounded([*kept, each])
        assert len(kept) <= timeline.MOST
    assert [each for each in long if each.at.timestamp() % 100 == START.timestamp() % 100] == [
        each for n, each in enumerate(kept) if n == 0 or kept[n - 1].weight != each.weight
    ]
    assert kept[-1] == long[-1]


def test_flapping_reasons_and_many_releases_leave_a_small_status() -> None:
    world = with_live()
    for number in range(2, 12):
        world.apply(spec(f"v{number}"))
        for _ in range(60):
            world.prometheus_down = not world.prometheus_down
            world.tick()
        world.prometheus_down = False
        world.run(settled)
    told = [len(each.timeline) for each in world.status.history]
    assert all(0 < number <= timeline.MOST for number in told[: timeline.TOLD_RELEASES])
    assert not any(told[timeline.TOLD_RELEASES :])
    assert len(world.status.model_dump_json(by_alias=True, exclude_none=True)) < 64_000


def test_text_from_the_cluster_is_text() -> None:
    world = story()
    shown = picture(world)
    shown.owner["status"]["release"]["message"] = "<script>alert(1)</script>"
    page = report.html(shown)
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_parts_without_a_picture_of_their_own_are_shown_as_they_are() -> None:
    raw = {"weight": 5, "smokeTest": {"requests": 20, "passed": True, "samples": [{"id": "<a>", "p50": 0.0031}]}}
    (extra,) = report.extras(raw)
    assert extra["title"] == "Smoke test"
    assert "<th>P50</th>" in extra["html"]
    assert "&lt;a&gt;" in extra["html"]
    assert ">yes<" in extra["html"]
    deep: dict[str, Any] = {}
    for _ in range(100):
        deep = {"deeper": deep or 1}
    assert len(nested.html(deep)) < 2000
    assert len(nested.html([{"n": n} for n in range(10_000)])) < 5000


def test_a_chart_without_points_is_nothing_and_points_stay_inside() -> None:
    assert chart("empty", {"a": []}) == ""
    drawn = chart("full", {"a": [(START, -5.0), (START + timedelta(seconds=1), 1e9)]}, bounds=(0.0, 1.0))
    ys = [float(each) for each in re.findall(r'cy="([\d.]+)"', drawn)]
    assert ys
    assert all(0 <= y <= 200 for y in ys)


def test_before_any_release_and_without_objects_there_is_a_page() -> None:
    world = World(spec("v1"))
    page = report.html(picture(world))
    assert "No version is live yet" in page
    world.status = stored(ModelDeploymentStatus())
    assert "There has been no release yet" in report.html(picture(world))


@pytest.mark.parametrize("dark", [False, True])
def test_a_browser_shows_it(tmp_path: Path, dark: bool) -> None:
    page = tmp_path / "report.html"
    page.write_text(report.html(picture(story())), encoding="utf-8")
    assert not re.search(r"""(src|href)=|url\(|@import""", page.read_text()), "nothing is loaded from elsewhere"
    try:
        with chromium(tmp_path / "profile", "--window-size=1000,1400") as browser:
            if dark:
                media = [{"name": "prefers-color-scheme", "value": "dark"}]
                browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
            browser.get(page.as_uri())
            assert browser.get_log("browser") == [], "the browser's own complaints"
            headings = [each.text for each in browser.find_elements(By.CSS_SELECTOR, "section.release h2")]
            assert [each.split()[1] for each in headings] == ["v4", "v3", "v2", "v1"]
            second = browser.find_elements(By.CSS_SELECTOR, "section.release")[1]
            for word in ("RolledBack", "ErrorRateTooHigh", "allowed are 0.1% by the SLO", "requests"):
                assert word in second.text
            assert "uri: http://store/v4/" in browser.find_element(By.CSS_SELECTOR, "section.release pre").text
            pictures = browser.find_elements(By.CSS_SELECTOR, "svg.chart")
            assert len(pictures) >= 6
            for each in pictures:
                size = each.size
                assert size["width"] > 300
                assert size["height"] > 60
            width = browser.execute_script("return document.documentElement.scrollWidth - window.innerWidth")
            assert width <= 0, "nothing sticks out to the right"
            colour = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
            assert colour == ("rgb(15, 19, 24)" if dark else "rgb(255, 255, 255)")
            paper = browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
            assert paper["data"].startswith("JVBER"), "a PDF"
    except ClusterError as error:
        pytest.skip(f"no browser: {error}")


def tried() -> World:
    """v2 came through a shadow and is in an experiment."""
    steps = [
        {"shadow": {"percent": 20, "duration": "6s", "minPairs": 20, "maxLatencyRatio": 2}},
        {"experiment": {**TRIED, "onSuccess": "Recommend"}},
    ]
    calm = with_live(release={"steps": [{"weight": 50}]})
    world = Watched(**{each.name: getattr(calm, each.name) for each in dataclasses.fields(World)})
    world.figures |= {"latency_ratio": 1.3}
    world.apply(spec("v2", release={"steps": steps}))
    world.run(lambda w: w.status.release is not None and w.status.release.reason == "ExperimentEnded")
    return world


def drawn(page: str) -> list[ElementTree.Element]:
    """The pictures of steps' figures, as XML."""
    found = re.findall(r'<svg class="chart figures".*?</svg>', page, re.DOTALL)
    return [ElementTree.fromstring(each) for each in found]


def test_a_shadow_and_an_experiment_have_pictures() -> None:
    page = report.html(picture(tried()))
    by = {(each.get("aria-label") or "").split()[0]: each for each in drawn(page)}
    shadow, arms, evidence = by["What"], by["Share"], by["Evidence"]
    labels = [each.text for each in shadow.iter("text")]
    for label in ("disagreement", "candidate failed", "PSI of the scores", "p95 by live's p95", "0.01, limit 0.25"):
        assert label in labels
    assert [each.text for each in arms.iter("text")][0::2][:2] == ["live", "candidate"]
    (limit,) = evidence.iter("line")
    better = next(each for each in evidence.iter("rect") if each.get("class") in ("k0", "over"))
    assert better.get("class") == "over", "it was sure"
    assert float(better.get("x", 0)) + float(better.get("width", 0)) >= float(limit.get("x1", 0))


@settings(deadline=None)
@given(value=st.floats(0, 10), limit=st.none() | st.floats(0.0001, 10))
def test_a_bar_passes_the_line_just_when_its_figure_passes_the_limit(value: float, limit: float | None) -> None:
    made = ElementTree.fromstring(figures.bars("x", [figures.Gauge("a", value, limit, "b")]))
    _, bar = made.iter("rect")
    right = float(bar.get("x", 0)) + float(bar.get("width", 0))
    assert right <= figures.WIDTH - 160
    lines = list(made.iter("line"))
    assert len(lines) == (limit is not None)
    if limit is not None:
        over = value > limit
        assert (bar.get("class") == "over") == over
        assert right >= float(lines[0].get("x1", 0)) - 0.2 if over else right <= float(lines[0].get("x1", 0)) + 0.2


@settings(deadline=None)
@given(trials=st.integers(1, 10**6), data=st.data())
def test_an_interval_holds_its_share(trials: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, trials))
    low, high = figures.interval(successes, trials)
    assert 0 <= low <= successes / trials + 1e-12
    assert successes / trials - 1e-12 <= high <= 1


def test_an_interval_as_others_compute_it() -> None:
    """R: prop.test(15, 50, correct = FALSE)."""
    low, high = figures.interval(15, 50)
    assert (round(low, 4), round(high, 4)) == (0.1910, 0.4375)


def test_a_browser_shows_pictures_of_steps(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text(report.html(picture(tried())), encoding="utf-8")
    assert not re.search(r"""(src|href)=|url\(|@import""", page.read_text()), "nothing is loaded from elsewhere"
    try:
        with chromium(tmp_path / "profile", "--window-size=1000,1400") as browser:
            browser.get(page.as_uri())
            assert browser.get_log("browser") == [], "the browser's own complaints"
            found = browser.find_elements(By.CSS_SELECTOR, "svg.figures")
            assert len(found) == 3
            for each in found:
                assert each.size["width"] > 300
                inside = "return [...arguments[0].querySelectorAll('text,rect,circle,path')].every(e => {"
                inside += "const b = e.getBoundingClientRect(), s = arguments[0].getBoundingClientRect();"
                inside += "return b.left >= s.left - 1 && b.right <= s.right + 1 && b.bottom <= s.bottom + 1})"
                assert browser.execute_script(inside, each), "nothing is cut off"
            over = browser.find_element(By.CSS_SELECTOR, "svg.figures rect.over")
            fill = browser.execute_script("return getComputedStyle(arguments[0]).fill", over)
            assert fill == "rgb(194, 29, 38)"
    except ClusterError as error:
        pytest.skip(f"no browser: {error}")
