"""Only processes that were started here are ended."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import ClusterError
from cluster.processes import Processes, marked_folders, start_time

SLEEP = ["/bin/sleep", "300"]


@pytest.fixture
def components(tmp_path: Path) -> Iterator[Processes]:
    """Components in a folder of the test's own, ended afterwards."""
    found = Processes(tmp_path)
    yield found
    found.kill_strays()


def record(folder: Path, name: str) -> dict[str, object]:
    loaded: dict[str, object] = json.loads((folder / "pids" / f"{name}.json").read_text())
    return loaded


def test_component_is_started_detached_and_ended(components: Processes, tmp_path: Path) -> None:
    components.start("a", SLEEP)
    pid = int(str(record(tmp_path, "a")["pid"]))
    assert components.alive("a")
    assert os.getsid(pid) == pid
    components.kill("a")
    assert start_time(pid) is None
    assert components.names() == []


def test_starting_twice_starts_once(components: Processes, tmp_path: Path) -> None:
    components.start("a", SLEEP)
    before = record(tmp_path, "a")
    components.start("a", SLEEP)
    assert record(tmp_path, "a") == before


def test_id_given_to_somebody_else_is_not_signalled(components: Processes, tmp_path: Path) -> None:
    components.start("a", SLEEP)
    file = tmp_path / "pids" / "a.json"
    # This very process took over the id, as far as the record can tell.
    stale = {**record(tmp_path, "a"), "pid": os.getpid(), "start_time": 1}
    file.write_text(json.dumps(stale))
    assert not components.alive("a")
    components.kill("a")
    assert not file.exists()


def test_record_cut_short_counts_as_not_running(components: Processes, tmp_path: Path) -> None:
    (tmp_path / "pids").mkdir()
    (tmp_path / "pids" / "a.json").write_text('{"name": "a", "pi')
    assert not components.alive("a")
    components.kill("a")
    assert components.names() == []


def test_component_without_a_record_is_found_by_its_mark(components: Processes, tmp_path: Path) -> None:
    components.start("a", SLEEP)
    (tmp_path / "pids" / "a.json").unlink()
    assert len(components.strays()) == 1
    components.kill_strays()
    assert components.strays() == []
    assert Processes(tmp_path / "other").strays() == []


def test_clusters_of_other_caches_are_seen(components: Processes, tmp_path: Path) -> None:
    assert tmp_path not in marked_folders()
    components.start("a", SLEEP)
    assert tmp_path in marked_folders()


def test_killed_component_comes_back_as_it_was(components: Processes, tmp_path: Path) -> None:
    components.start("a", SLEEP, {"COLOUR": "yellow"})
    components.kill("a", signal.SIGKILL, keep=True)
    assert record(tmp_path, "a")["stopped_on_purpose"] is True
    components.restart("a")
    assert components.alive("a")
    assert record(tmp_path, "a")["stopped_on_purpose"] is False
    environ = Path(f"/proc/{record(tmp_path, 'a')['pid']}/environ").read_bytes()
    assert b"COLOUR=yellow" in environ


def test_ended_component_tells_its_last_words(components: Processes) -> None:
    components.start("a", ["/bin/sh", "-c", "echo no such flag >&2; exit 1"])
    components.kill("a", keep=True)
    with pytest.raises(ClusterError, match="a has ended"):
        components.require("a")


def test_unknown_component_is_named(components: Processes) -> None:
    with pytest.raises(ClusterError, match="no component called b"):
        components.kill("b", keep=True)
    with pytest.raises(ClusterError, match="no component called b"):
        components.restart("b")
    with pytest.raises(ClusterError, match="no component called b"):
        components.logs("b")
