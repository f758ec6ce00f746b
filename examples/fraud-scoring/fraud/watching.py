"""The demo's eyes: the ModelDeployment, its Events and the load generator's log, gathered while it runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fraud import store
from fraud.kube import Tools, Watch
from fraud.live import WINDOW_SECONDS, View
from fraud.records import Reader, Record
from fraud.story import Snapshot, Story, snapshot

TICK_SECONDS = 0.4


class DemoError(Exception):
    """The demo cannot go on; the text says why."""


class Load:
    """The load generator as a process of its own."""

    def __init__(self, url: str, rate: float, seconds: float, folder: Path) -> None:
        self.records_file = folder / "requests.csv"
        self.records_file.unlink(missing_ok=True)
        command = [sys.executable, "-m", "fraud.load", "--url", url, "--rate", str(rate), "--seconds", str(seconds)]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
        with (folder / "load.log").open("w") as log:
            self._process = subprocess.Popen(
                [*command, "--out", str(self.records_file)], stdout=log, stderr=subprocess.STDOUT, env=environment
            )

    def ended(self) -> bool:
        """Whether it stopped by itself."""
        return self._process.poll() is not None

    def stop(self) -> None:
        """Lets it finish what is under way."""
        if not self.ended():
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Observer:
    """Keeps the story and the records up to date, and waits for things to come true."""

    def __init__(self, kubernetes: Tools, view: View) -> None:
        self.story = Story()
        self.records: list[Record] = []
        self._view = view
        self._recent: deque[Record] = deque()
        self._load: Load | None = None
        self._reader: Reader | None = None
        self._lock = threading.Lock()
        self._notes: deque[str] = deque()
        self._counts: dict[str, int] = {}
        place = ["-n", store.NAMESPACE]
        self._watches = [
            Watch(
                kubernetes,
                ["modeldeployments", "--field-selector", f"metadata.name={store.DEPLOYMENT}", *place],
                self._saw_resource,
            ),
            Watch(kubernetes, ["events", *place], self._saw_event),
        ]

    def follow(self, load: Load) -> None:
        """Reads this load generator's log from now on."""
        self._load, self._reader = load, Reader(load.records_file)

    @property
    def latest(self) -> Snapshot | None:
        """The newest status seen."""
        return self.story.snapshots[-1] if self.story.snapshots else None

    def wait(self, what: str, done: Callable[[], bool], seconds: float) -> None:
        """Shows the state until `done`. Raises DemoError when it takes longer than `seconds` or the load ends."""
        deadline = time.monotonic() + seconds
        while not done():
            if time.monotonic() > deadline:
                seen = self.latest
                state = f"phase {seen.phase}, live {seen.live}, weight {seen.weight} %" if seen else "no status at all"
                raise DemoError(f"{what}: not within {seconds:.0f} s; last seen: {state}")
            if self._load is not None and self._load.ended():
                raise DemoError(f"{what}: the load generator ended; see {self._load.records_file.parent / 'load.log'}")
            self.refresh()
            time.sleep(TICK_SECONDS)

    def watch_for(self, seconds: float) -> None:
        """Shows the state for a while."""
        end = time.monotonic() + seconds
        self.wait("watching", lambda: time.monotonic() >= end, seconds + 5)

    def refresh(self) -> None:
        """Reads what is new and shows it."""
        if self._reader is not None:
            new = self._reader.poll()
            self.records += new
            self._recent.extend(new)
        horizon = time.time() - WINDOW_SECONDS
        while self._recent and self._recent[0].at < horizon:
            self._recent.popleft()
        with self._lock:
            notes = list(self._notes)
            self._notes.clear()
        for note in notes:
            self._view.note(note)
        self._view.show(self.latest, self._recent)

    def close(self) -> None:
        """Ends the watches."""
        for watch in self._watches:
            watch.close()

    def _saw_resource(self, resource: dict[str, Any]) -> None:
        if resource.get("kind") == "ModelDeployment":
            self.story.snapshots.append(snapshot(resource, time.time()))

    def _saw_event(self, event: dict[str, Any]) -> None:
        target = event.get("involvedObject") or event.get("regarding") or {}
        if target.get("kind") != "ModelDeployment" or target.get("name") != store.DEPLOYMENT:
            return
        count = int(event.get("count") or (event.get("series") or {}).get("count") or 1)
        name = str(event["metadata"]["name"])
        if self._counts.get(name) == count:
            return
        self._counts[name] = count
        reason, message = str(event.get("reason") or ""), str(event.get("message") or event.get("note") or "")
        self.story.events.append((time.time(), reason, message))
        with self._lock:
            self._notes.append(f"  event {reason}: {message}")
