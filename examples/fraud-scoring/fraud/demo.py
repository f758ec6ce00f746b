"""`make demo`: v1 live, v2 promoted, v3 rolled back, v4 and v5 rejected, under load, in front of your eyes.

Ends with tables, `timeline.png` and `timeline.html` in the output folder, and one line `RESULT name=value ...`. Exit
code 0 when every promise was kept, 1 when one was broken, 2 when the demo could not run.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import TypeVar

from rich.console import Console

from cluster import ClusterError, ClusterInfo, Provider, get
from fraud import live, picture, prepare, store
from fraud.kube import CommandError, Tools
from fraud.load import bodies
from fraud.page import page, print_tables
from fraud.prepare import Images
from fraud.story import expectations, release, result_line
from fraud.train import VERSIONS, Built, cached
from fraud.watching import DemoError, Load, Observer

TITLE = "Serinus: one good release, one that slowed, two that never met a user"
HOST = "fraud.example.com"
MOST_SECONDS = 1500.0
"""The load generator stops by itself after this."""

WAIT_SECONDS = {"v1": 240.0, "v2": 420.0, "v3": 300.0, "v4": 300.0, "v5": 300.0}
CALM_SECONDS = 20.0
OUT = prepare.REPOSITORY / "build" / "demo"
T = TypeVar("T")


class Demo:
    """One run, from models to promises."""

    def __init__(self, kubernetes: Tools, info: ClusterInfo, models: dict[str, Built], folder: Path) -> None:
        self.kubernetes, self.info, self.models, self.folder = kubernetes, info, models, folder
        self.view = live.make()
        self.observer = Observer(kubernetes, self.view)

    def run(self, rate: float) -> None:
        """Everything the audience sees. Raises DemoError or CommandError; what was recorded until then stays."""
        with ExitStack() as cleanup:
            cleanup.callback(self.view.close)
            cleanup.callback(self.observer.close)
            self._first_version()
            load = Load(self.info.gateway_url, rate, MOST_SECONDS, self.folder)
            cleanup.callback(self.observer.refresh)
            cleanup.callback(load.stop)
            self.observer.follow(load)
            self.view.note(f"load: {rate:.0f} requests/s through {self.info.gateway_url}, Host {HOST}")
            self.observer.watch_for(CALM_SECONDS)
            for version in VERSIONS[1:]:
                self._release(version)

    def _first_version(self) -> None:
        self._apply("v1")
        self.observer.wait("v1 goes live", lambda: self._is_live("v1"), WAIT_SECONDS["v1"])
        self.view.note("v1 is live")
        self.observer.wait("the gateway answers", self._answers, 60)

    def _release(self, version: str) -> None:
        self._apply(version)
        self.observer.wait(
            f"the release of {version} ends",
            lambda: self.observer.story.ended(version) is not None,
            WAIT_SECONDS[version],
        )
        end = self.observer.story.ended(version)
        assert end is not None
        self.view.note(f"{version}: {end.last_outcome} ({end.last_reason}) {end.last_message}")
        self.observer.watch_for(CALM_SECONDS if version in ("v2", "v3") else CALM_SECONDS / 4)

    def _apply(self, version: str) -> None:
        namespace, gateway = self.info.gateway
        file = self.folder / f"modeldeployment-{version}.yaml"
        file.write_text(store.model_deployment(self.models[version], gateway, namespace))
        self.observer.story.applied[version] = time.time()
        self.view.note(f"kubectl apply -f {file}")
        self.kubernetes.run("apply", "-f", str(file))

    def _is_live(self, version: str) -> bool:
        seen = self.observer.latest
        return seen is not None and seen.live == version and seen.ready

    def _answers(self) -> bool:
        url = f"{self.info.gateway_url}/v2/models/{store.DEPLOYMENT}/infer"
        headers = {"Host": HOST, "Content-Type": "application/json"}
        request = urllib.request.Request(url, data=bodies(1, 1, seed=3)[0], headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def report(self, extra: dict[str, float]) -> bool:
        """Tables, picture, page, RESULT line. Returns whether every promise was kept."""
        story, records = self.observer.story, self.observer.records
        releases = {version: release(story, records, version) for version in VERSIONS}
        kept = expectations(releases)
        if records:
            figure = picture.draw(story, records, TITLE)
            picture.save_png(figure, self.folder / "timeline.png")
            text = page(TITLE, picture.svg(figure), story, records, releases, kept)
            (self.folder / "timeline.html").write_text(text)
        print_tables(Console(width=None if sys.stdout.isatty() else 150), releases, kept)
        if records:
            print(f"picture: {self.folder / 'timeline.png'}   page: {self.folder / 'timeline.html'}")
        print(result_line(releases, records, extra), flush=True)
        return all(item.kept for item in kept)


def set_up(provider: Provider, models: dict[str, Built], *, install: bool) -> tuple[Tools, ClusterInfo]:
    """Cluster, images, chart and model store; says what it does and how long each took."""
    images = Images.from_environment()
    info = _timed(f"cluster ({provider.name})", provider.start)
    kubernetes = prepare.tools(info)
    if install:
        build = _timed("images", lambda: prepare.load_images(provider, images, _say))
        _timed("operator, installed with helm", lambda: prepare.install_chart(kubernetes, info, images, build))
    _timed("what an earlier demo left is removed", lambda: prepare.remove_models(kubernetes))
    _timed("model store", lambda: prepare.install_store(kubernetes, models, images))
    return kubernetes, info


def _timed(what: str, work: Callable[[], T]) -> T:
    started = time.monotonic()
    _say(f"{what} ...")
    result = work()
    _say(f"{what}: {time.monotonic() - started:.1f} s")
    return result


def _say(text: str) -> None:
    print(f"demo: {text}", flush=True)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--keep",
        action="store_true",
        default=os.environ.get("KEEP", "") not in ("", "0"),
        help="leave the cluster and everything in it running; KEEP=1 means the same",
    )
    parser.add_argument("--rate", type=float, default=200.0, help="requests per second")
    parser.add_argument(
        "--out", type=Path, default=prepare.REPOSITORY / "build" / "demo", help="folder for the results"
    )
    parser.add_argument("--no-install", action="store_true", help="the operator is already installed")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        with prepare.alone():
            return _run(get(), options)
    except (ClusterError, CommandError, DemoError, prepare.BusyError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
        return 130


def _run(provider: Provider, options: argparse.Namespace) -> int:
    started = time.monotonic()
    found_running = provider.running() is not None
    kubernetes: Tools | None = None
    try:
        models = _timed("five versions of the model", lambda: cached(log=_say))
        kubernetes, info = set_up(provider, models, install=not options.no_install)
        ready = time.monotonic()
        demo = Demo(kubernetes, info, models, options.out)
        broken = ""
        try:
            demo.run(options.rate)
        except (DemoError, CommandError) as error:
            broken = str(error)
        extra = {"setup_s": ready - started, "demo_s": time.monotonic() - ready}
        kept = demo.report(extra)
        if broken:
            print(f"demo: {broken}", file=sys.stderr)
        return 0 if kept and not broken else 1
    finally:
        if not options.keep:
            _clean_up(provider, kubernetes, found_running=found_running)


def _clean_up(provider: Provider, kubernetes: Tools | None, *, found_running: bool) -> None:
    """A cluster that the demo started goes; one that it found keeps running without the demo's things."""
    if not found_running:
        _timed("cluster stops", provider.stop)
    elif kubernetes is not None:
        _timed("the demo's things are removed", lambda: prepare.remove_everything(kubernetes))


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
