"""Which headers pass, and how settings of the proxy are read."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serinus_runtime.config import Config, from_environment
from serinus_runtime.failures import FailureError
from serinus_runtime.proxy import settings
from serinus_runtime.proxy.headers import HOP_BY_HOP, answer_lines, request_head
from serinus_runtime.proxy.record import Passed, Recorder

_names = st.sampled_from(
    [*sorted(HOP_BY_HOP), b"x-a", b"x-b", b"accept", b"expect", b"content-length", b"x-request-id"]
)
_headers = st.dictionaries(_names, st.sampled_from([b"1", b"x-a", b"x-b, close", b"keep-alive, X-A"]), max_size=8)


def _head(headers: dict[bytes, bytes], **more: object) -> list[bytes]:
    settings = {"host": b"engine", "request_id": b"id-1", "size": 3, **more}
    head = request_head(b"POST", b"/p?q", headers, **settings)  # type: ignore[arg-type]
    assert head.endswith(b"\r\n\r\n")
    return head[:-4].split(b"\r\n")


@given(_headers)
def test_what_belongs_to_one_connection_stays_there(headers: dict[bytes, bytes]) -> None:
    lines = _head(headers)
    assert lines[:2] == [b"POST /p?q HTTP/1.1", b"host: engine"]
    names = [line.partition(b":")[0] for line in lines[1:]]
    assert len(names) == len(set(names))
    named = {part.strip().lower() for part in headers.get(b"connection", b"").split(b",")}
    assert not set(names) & (HOP_BY_HOP | named | {b"expect"})
    assert set(names) >= headers.keys() - HOP_BY_HOP - named - {b"expect"}
    assert {b"content-length: 3", b"x-request-id: id-1", b"via: 1.1 serinus-runtime"} <= set(lines)


@given(st.lists(st.tuples(_names, st.sampled_from([b"1", b"x-a", b"x-b, close"])), max_size=8))
def test_answers_keep_what_they_repeat(headers: list[tuple[bytes, bytes]]) -> None:
    lines = answer_lines(headers).split(b"\r\n")[:-1]
    named = {part.strip() for name, value in headers if name == b"connection" for part in value.split(b",")}
    ours = HOP_BY_HOP | named | {b"content-length", b"x-request-id"}
    assert lines == [b"%b: %b" % each for each in headers if each[0] not in ours]


def test_targets_and_upgrades() -> None:
    assert request_head(b"GET", b"http://other/p?q", {}, host=b"h", request_id=b"i", size=0).startswith(
        b"GET /p?q HTTP"
    )
    assert request_head(b"GET", b"http://other", {}, host=b"h", request_id=b"i", size=0).startswith(b"GET / HTTP")
    assert request_head(b"OPTIONS", b"*", {}, host=b"h", request_id=b"i", size=0).startswith(b"OPTIONS * HTTP")
    assert not any(line.startswith(b"content-length") for line in _head({}, size=3)[:1])
    assert b"upgrade: websocket" in _head({b"upgrade": b"websocket", b"connection": b"upgrade"}, websocket=True)
    assert not any(
        line.startswith(b"accept-enc")
        for line in _head({b"accept-encoding": b"gzip"}, drop=frozenset((b"accept-encoding",)))
    )


@pytest.mark.parametrize(
    "url",
    ["", "127.0.0.1:9000", "https://h", "http://h/path", "http://", "http://u:p@h", "http://h:99999", "http://h?x"],
)
def test_addresses_that_cannot_be_used(url: str) -> None:
    with pytest.raises(FailureError, match="SERINUS_PROXY_URL"):
        settings.parse_url(url)


def test_settings() -> None:
    assert settings.parse_url("http://[::1]:9000") == ("::1", 9000)
    assert settings.parse_url("http://engine") == ("engine", 80)
    config = from_environment({"SERINUS_PROXY_PATHS": "/predict*,/score", "SERINUS_PROXY_MODELS": "a=b,c"})
    known = settings.read(config)
    assert known.models == {"a": "b", "c": "c"}
    assert known.counted is not None
    assert [bool(known.counted.fullmatch(path)) for path in (b"/predict/x", b"/score", b"/scores")] == [
        True,
        True,
        False,
    ]
    assert settings.read(Config(model_name="m")).models == {"m": "m"}
    for name, text in (("PROXY_PATHS", "predict"), ("PROXY_MODELS", "a=b,a=c"), ("PROXY_HEALTH", "health")):
        with pytest.raises(FailureError, match=f"SERINUS_{name}"):
            from_environment({f"SERINUS_{name}": text})


def _passed(body: bytes, path: bytes = b"/p") -> Passed:
    return Passed(200, b"id", b"POST", path, body, 1.0, 1.5, 0.0, 2.0, 3, 0)


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_lines_are_json_whatever_passes(body: bytes, path: bytes) -> None:
    recorder = Recorder(lambda *_: None, b',"model":"m"}\n', payloads=1.0, redact=frozenset({"a"}))
    told = json.loads(recorder.line(_passed(body, path)))
    assert (told["bytes_in"], told["model"], told["ms"]["upstream"]) == (len(body), "m", 500.0)


_json = st.recursive(
    st.none() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "name"]), inner, max_size=3),
    max_leaves=12,
)


@given(_json)
def test_what_is_redacted_is_nowhere(value: object) -> None:
    recorder = Recorder(lambda *_: None, b"}\n", redact=frozenset({"a"}))

    def clean(shown: object) -> bool:
        if isinstance(shown, dict):
            if shown.get("name") == "a":
                return shown == {"name": "a", "data": "[redacted]"}
            return all(each == "[redacted]" if key == "a" else clean(each) for key, each in shown.items())
        return all(map(clean, shown)) if isinstance(shown, list) else True

    assert clean(recorder.shown(json.dumps(value).encode()))


def test_tensors_are_redacted_by_their_names() -> None:
    recorder = Recorder(lambda *_: None, b"}\n", redact=frozenset({"secret"}))
    body = {"inputs": [{"name": "secret", "shape": [1], "data": [7]}, {"name": "x", "data": [1]}]}
    assert recorder.shown(json.dumps(body).encode()) == {
        "inputs": [{"name": "secret", "data": "[redacted]"}, {"name": "x", "data": [1]}]
    }
    assert recorder.shown(b"[" * 5000) == {"bytes": 5000}
    assert recorder.shown(b"\xff") == {"bytes": 1}
