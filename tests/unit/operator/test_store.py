"""The store: newest wins, deleted stays deleted."""

from __future__ import annotations

from typing import Any

from serinus.cluster.applier import fingerprint
from serinus.cluster.store import Store

KEY = ("ns", "fraud")


def service(version: int, uid: str = "u1", **spec: Any) -> dict[str, Any]:
    labels = {"serving.serinus.dev/deployment": "fraud"}
    meta = {"namespace": "ns", "name": "fraud-x", "uid": uid, "resourceVersion": str(version), "labels": labels}
    return {"kind": "Service", "metadata": meta, "spec": spec}


def test_a_late_watch_event_does_not_undo_what_we_wrote() -> None:
    store = Store()
    assert store.put(service(5, port=1)) == KEY
    store.put(service(9, port=2))
    store.put(service(7, port=1))
    assert store.children(KEY)[0]["spec"] == {"port": 2}


def test_deleted_objects_do_not_come_back_but_a_new_one_of_that_name_does() -> None:
    store = Store()
    store.put(service(5))
    assert store.remove(service(6)) == KEY
    store.put(service(5))
    assert store.children(KEY) == []
    store.put(service(8, uid="u2"))
    store.remove(service(6))
    assert len(store.children(KEY)) == 1


def test_objects_of_others_have_no_owner() -> None:
    other = service(1)
    del other["metadata"]["labels"]
    assert Store().put(other) is None


def test_fingerprint_ignores_status_and_bookkeeping_only() -> None:
    first, second = service(1, port=1), service(2, port=1)
    second["status"] = {"ready": 1}
    second["metadata"]["managedFields"] = [{}]
    assert fingerprint(first) == fingerprint(second)
    assert fingerprint(first) != fingerprint(service(1, port=2))
    second["metadata"]["labels"] = {}
    assert fingerprint(first) != fingerprint(second)
