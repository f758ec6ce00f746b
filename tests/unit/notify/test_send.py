"""Messages over real HTTP, and texts from templates that strangers wrote."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from serinus.api.notifications import Happening, Notification
from serinus.api.status import Message
from serinus.errands.guard import LINK_LOCAL
from serinus.notify.configured import NotificationsError, read
from serinus.notify.send import Sender
from serinus.notify.text import DEFAULT, LONGEST, TemplateProblem, text
from serinus.release.outbox import Delivery, Receipt, fields

OWNER = ("shop", "fraud")
MESSAGE = Message(
    id=3,
    to="x",
    event=Happening.ROLLED_BACK,
    at=datetime(2026, 11, 21, tzinfo=UTC),
    version="v3",
    revision="abc",
    weight=5,
    reason="ErrorRateTooHigh",
    message="5 of 100 requests failed & <!channel> was told",
)


@dataclass
class Site:
    """An HTTP server that notes what it gets."""

    url: str = ""
    status: int = 200
    got: list[tuple[dict[str, Any], dict[str, str]]] = field(default_factory=list)
    open: threading.Event = field(default_factory=threading.Event)


@contextmanager
def site(status: int = 200, *, hangs: bool = False) -> Iterator[Site]:
    made = Site(status=status)
    if not hangs:
        made.open.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            made.got.append((json.loads(body), dict(self.headers)))
            made.open.wait(10)
            self.send_response(made.status)
            self.send_header("Location", "http://127.0.0.1:1/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{http.server_port}/hook"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield made
    finally:
        made.open.set()
        http.shutdown()
        thread.join()
        http.server_close()


def send(
    to: dict[str, Any], receivers: Path | None = None, timeout: float = 10.0, hosts: Sequence[str] = ()
) -> Receipt:
    async def once() -> Receipt:
        delivery = Delivery(MESSAGE, Notification.model_validate(to))
        return await Sender(receivers, hosts, timeout=timeout)(OWNER, delivery)

    return asyncio.run(once())


def test_a_webhook_gets_every_field_and_an_id_to_know_it_by() -> None:
    with site() as there:
        assert send({"type": "Webhook", "url": there.url}) == Receipt()
        ((body, headers),) = there.got
    assert body.pop("text").startswith("shop/fraud, version v3: ROLLED BACK. 5 of 100 requests failed & <!channel>")
    assert body == fields(*OWNER, MESSAGE)
    assert headers["Idempotency-Key"] == body["id"] == "shop/fraud/3"


def test_slack_gets_a_text_that_mentions_nobody(tmp_path: Path) -> None:
    with site() as there:
        (tmp_path / "team").write_text(there.url + "\n")
        to = {"type": "Slack", "receiver": "team", "template": "*{{ name | upper }}* {{ message }}"}
        assert send(to, tmp_path) == Receipt()
        ((body, _),) = there.got
    assert body == {"text": "*FRAUD* 5 of 100 requests failed &amp; &lt;!channel&gt; was told"}


@pytest.mark.parametrize(
    ("status", "final"), [(500, False), (503, False), (429, False), (404, True), (403, True), (302, True)]
)
def test_what_the_receiver_answers(status: int, final: bool, tmp_path: Path) -> None:
    with site(status) as there:
        (tmp_path / "team").write_text(there.url)
        receipt = send({"type": "Slack", "receiver": "team"}, tmp_path)
        assert len(there.got) == 1, "no redirect is followed, and nothing is tried again here"
    assert receipt == Receipt(f"receiver team answered {status}", final)
    assert there.url not in receipt.problem


def test_nobody_there_and_somebody_who_hangs() -> None:
    assert send({"type": "Webhook", "url": "http://127.0.0.1:9/"}) == Receipt(
        "the receiver's url cannot be reached: ClientConnectorError"
    )
    with site(hangs=True) as there:
        receipt = send({"type": "Webhook", "url": there.url}, timeout=0.3)
    assert receipt.problem == "the receiver's url cannot be reached: TimeoutError"
    assert not receipt.final


def test_a_receiver_is_read_anew_each_time_and_its_address_is_told_to_nobody(tmp_path: Path) -> None:
    to = {"type": "Slack", "receiver": "team"}
    assert "keeps no receivers" in send(to).problem
    assert "no receiver 'team'" in send(to, tmp_path).problem
    (tmp_path / "team").write_text("hunter2-is-the-token")
    problem = send(to, tmp_path).problem
    assert "holds no http:// or https:// address" in problem
    assert "hunter2" not in problem
    with site() as there:
        (tmp_path / "team").write_text(there.url)
        assert send(to, tmp_path) == Receipt()


def test_a_template_that_cannot_be_used_loses_no_message() -> None:
    with site() as there:
        assert send({"type": "Slack", "url": there.url, "template": "{{ nonsense }}"}) == Receipt()
        ((body, _),) = there.got
    assert "ROLLED BACK" in body["text"]
    assert "the template cannot be used: 'nonsense' is undefined" in body["text"]


@pytest.mark.parametrize("event", list(Happening))
def test_the_default_text_says_something_for_everything(event: Happening) -> None:
    said = text(None, fields(*OWNER, MESSAGE.model_copy(update={"event": event})))
    assert said.startswith("shop/fraud, version v3: ")
    assert said.endswith(MESSAGE.message)
    assert len(text(DEFAULT, fields(*OWNER, MESSAGE.model_copy(update={"message": "x" * 9000})))) == LONGEST


@pytest.mark.parametrize(
    "template",
    [
        "{% for i in range(10) %}{{ i }}{% endfor %}",
        "{{ 9 ** 9 ** 9 }}",
        "{{ 'a' * 10 ** 9 }}",
        "{{ range(10) }}",
        "{{ name.__class__.__mro__ }}",
        "{{ name | center(1000000000) }}",
        "{% set x = 1 %}",
        "{% macro m() %}{{ m() }}{% endmacro %}",
        "{% include 'x' %}",
        "{{ name",
        "{{ [1] | map('upper') }}",
    ],
)
def test_templates_may_say_things_but_not_compute(template: str) -> None:
    with pytest.raises(TemplateProblem):
        text(template, fields(*OWNER, MESSAGE))


def test_conditions_and_simple_filters_are_allowed() -> None:
    template = "{% if event == 'RolledBack' and weight > 1 %}{{ version | upper }}{% else %}fine{% endif %}"
    assert text(template, fields(*OWNER, MESSAGE)) == "V3"


def test_the_operators_own_list(tmp_path: Path) -> None:
    path = tmp_path / "n.yaml"
    path.write_text("- {type: Slack, receiver: team, events: [Failed]}\n")
    (found,) = read(path)
    assert found.receiver == "team"
    assert read(None) == ()
    path.write_text("- {type: Pigeon}\n")
    with pytest.raises(NotificationsError, match=r"0\.type"):
        read(path)
    with pytest.raises(NotificationsError, match="absent"):
        read(tmp_path / "absent")


def test_only_the_hosts_that_are_allowed(tmp_path: Path) -> None:
    with site() as there:
        (tmp_path / "team").write_text(there.url)
        to = {"type": "Slack", "receiver": "team"}
        refused = send(to, tmp_path, hosts=("*.example.com",))
        assert there.got == []
        assert refused == Receipt(
            "the operator may not call receiver team: its webhooks.hosts are *.example.com", final=True
        )
        assert send(to, tmp_path, hosts=("*.example.com", "127.0.0.*")) == Receipt()


@pytest.mark.parametrize("address", ["http://169.254.169.254/latest", "http://100.100.100.200/"])
def test_metadata_services_are_never_told(address: str, tmp_path: Path) -> None:
    assert send({"type": "Webhook", "url": address}) == Receipt(LINK_LOCAL, final=True)
    (tmp_path / "team").write_text(address)
    assert send({"type": "Slack", "receiver": "team"}, tmp_path) == Receipt(LINK_LOCAL, final=True)


@pytest.mark.parametrize("host", ["2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.16689662"])
def test_no_spelling_of_a_number_leads_to_them(host: str) -> None:
    """Resolved, not parsed: the resolver knows more spellings than any list. Some the client refuses itself."""
    problem = send({"type": "Webhook", "url": f"http://{host}/latest"}).problem
    assert problem.rpartition(" ")[2] in ("ClientConnectorDNSError", "InvalidUrlClientError")
