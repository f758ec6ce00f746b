"""The page at /docs in a real browser: it shows the server's document, and its button asks the server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from cluster.errors import ClusterError
from serinus_runtime.config import Config
from serinus_runtime.server import load_model
from support.browser import chromium
from unit.runtime import support
from unit.runtime.support import WAIT, Live


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    """Chromium from Debian without a window."""
    with ExitStack() as stack:
        try:
            driver = stack.enter_context(chromium(tmp_path / "profile", "--window-size=1000,1400"))
        except ClusterError as error:
            pytest.skip(f"no browser: {error}")
        yield driver


def test_a_visitor_can_try_the_model(browser: Any, tmp_path: Path) -> None:
    directory = support.scorer_model(tmp_path / "m")
    with Live(load_model(Config(model_dir=directory)), model_dir=directory, model_name="fraud") as live:
        browser.get(f"http://127.0.0.1:{live.port}/docs")
        wait = WebDriverWait(browser, WAIT)
        first = wait.until(lambda page: page.find_element(By.CSS_SELECTOR, "#paths > details[open]"))
        assert browser.title == "fraud"
        assert "/predict" in first.text
        area = first.find_element(By.TAG_NAME, "textarea")
        row = json.loads(area.get_attribute("value"))
        assert set(row) == {"amount", "age", "hour", "category"}, "the example fits the model"
        area.clear()
        area.send_keys(json.dumps({**row, "amount": 0.7}))
        first.find_element(By.TAG_NAME, "button").click()
        wait.until(lambda _: "decision" in first.text)
        assert '"step_up"' in first.text
        assert "200" in first.text
        area.clear()
        area.send_keys("{}")
        first.find_element(By.TAG_NAME, "button").click()
        wait.until(lambda _: "400" in first.text)
        assert '"error"' in first.text
        paths = browser.find_element(By.ID, "paths").text
        for path in ("/v2/models/fraud/infer", "/v1/models/fraud:predict", "/v2/health/ready"):
            assert path in paths
        browser.save_screenshot(str(tmp_path / "page.png"))
        # Nothing is loaded from elsewhere, and nothing went wrong: the browser's own log says so.
        troubles = [entry for entry in browser.get_log("browser") if "400" not in entry["message"]]
        assert troubles == [], troubles
