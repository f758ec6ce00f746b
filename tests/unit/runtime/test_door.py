"""Keys, deadlines and priorities, and the door that joins them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serinus_runtime.ingress.deadlines import timeout_of, timeout_parameter
from serinus_runtime.ingress.door import ADDRESSES, MAX_NAMES, Admitted, Door, Refused
from serinus_runtime.ingress.keyfile import WatchedFile
from serinus_runtime.ingress.keys import SCOPES, Key, KeyRing, parse_keys, read_keys, shown_key
from serinus_runtime.ingress.priorities import priority_of, priority_parameter, ticket_priority
from serinus_runtime.ingress.ratelimit import Rate
from serinus_runtime.problems import InvalidRequestError

_HASH = hashlib.sha256(b"hashed-key-1").hexdigest()
_LINES = f"""
# who may ask
shop    shop-key-1
batch   sha256:{_HASH} scopes=infer,async rate=10/m burst=50 priority=7
"""


def _door(tmp_path: Path, text: str = _LINES, **more: object) -> Door:
    path = tmp_path / "keys"
    path.write_text(text)
    return Door(keys=WatchedFile(path, read_keys), **more)  # type: ignore[arg-type]


def _bearer(key: str) -> dict[bytes, bytes]:
    return {b"authorization": b"Bearer " + key.encode()}


def test_lines_and_json_say_the_same() -> None:
    told = {
        "keys": [
            {"name": "shop", "key": "shop-key-1"},
            {"name": "batch", "sha256": _HASH, "scopes": ["infer", "async"], "rate": "10/m burst 50", "priority": 7},
        ]
    }
    keys = parse_keys(_LINES.encode())
    assert keys == parse_keys(json.dumps(told).encode()) == parse_keys(json.dumps(told["keys"]).encode())
    assert keys[1] == Key(
        name="batch",
        digest=bytes.fromhex(_HASH),
        scopes=frozenset({"infer", "async"}),
        rate=Rate(10 / 60, 50),
        priority=7,
    )
    assert keys[0].scopes == frozenset(SCOPES)
    assert "control" not in keys[0].scopes


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", "holds no key: write one line per client"),
        ("lonely", "line 1: write NAME KEY"),
        ("shop short", "shorter than 8"),
        ("shop sha256:abc", "64 lower-case hex digits"),
        ("sh/op long-enough-key", "the name must be letters"),
        ("shop long-enough-key scope=infer", "option 'scope' is unknown"),
        ("shop long-enough-key scopes=admin", "must be some of infer, async, read, metrics"),
        ("shop long-enough-key rate=fast", "such as 100/s burst 200"),
        ("shop long-enough-key burst=5", "burst needs a rate"),
        ("shop long-enough-key priority=0", "from 1, the highest, to 9"),
        ("a long-enough-key\nb long-enough-key", "line 2: the same key is given twice, first to 'a'"),
        ("{", "begins like JSON"),
        ('{"key": []}', "must be a list of keys"),
        ('[{"name": "a", "secret": "x"}]', "'secret' is unknown"),
        ('[{"name": "a", "key": "long-enough-key", "sha256": "x"}]', "not both"),
        ('[{"name": "a", "key": 5}]', "printable ASCII"),
    ],
)
def test_wrong_files_are_told_what_to_write(text: str, wanted: str) -> None:
    with pytest.raises(ValueError, match=wanted) as caught:
        parse_keys(text.encode())
    assert "long-enough-key" not in str(caught.value)


@given(st.lists(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=40), unique=True))
def test_a_ring_finds_its_own_keys_and_no_others(texts: list[str]) -> None:
    known = texts[: len(texts) // 2]
    ring = KeyRing(Key(name=f"k{n}", digest=hashlib.sha256(text.encode()).digest()) for n, text in enumerate(known))
    assert [getattr(ring.find(text.encode()), "name", None) for text in texts] == [
        f"k{n}" if n < len(known) else None for n in range(len(texts))
    ]


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ({b"authorization": b"Bearer abc"}, b"abc"),
        ({b"authorization": b"bearer  abc "}, b"abc"),
        ({b"x-api-key": b"abc"}, b"abc"),
        ({b"authorization": b"Basic eDp5", b"x-api-key": b"abc"}, b"abc"),
        ({b"authorization": b"Basic eDp5"}, None),
        ({}, None),
    ],
)
def test_keys_are_shown_in_either_header(headers: dict[bytes, bytes], key: bytes | None) -> None:
    assert shown_key(headers) == key


def test_who_is_not_known_is_told_how_to_show_a_key(tmp_path: Path) -> None:
    door = _door(tmp_path)
    for headers in ({}, _bearer("shop-key-2"), {b"x-api-key": b""}):
        refused = door.admit(headers, "1.1.1.1", 0.0)
        assert isinstance(refused, Refused)
        assert (refused.status, refused.reason) == (401, "unauthenticated")
        assert refused.headers.startswith(b'www-authenticate: Bearer realm="serinus"')
        assert "X-API-Key" in refused.message
    assert door.admit(_bearer("shop-key-1"), "1.1.1.1", 0.0) == Admitted(client="shop")
    assert door.admit({b"x-api-key": b"shop-key-1"}, "1.1.1.1", 0.0, "metrics") == Admitted(client="shop")


def test_a_key_without_the_right_is_forbidden(tmp_path: Path) -> None:
    door = _door(tmp_path)
    refused = door.admit(_bearer("hashed-key-1"), "", 0.0, "read")
    assert isinstance(refused, Refused)
    assert (refused.status, refused.client, refused.reason) == (403, "batch", "forbidden")
    assert b'error="insufficient_scope", scope="read"' in refused.headers
    assert door.may(_bearer("hashed-key-1"), "read") == refused
    assert door.may(_bearer("shop-key-1"), "read") is None
    assert Door().may({}, "read") is None


def test_limits_are_the_keys_own_or_everybodys(tmp_path: Path) -> None:
    door = _door(tmp_path, rate=Rate(1.0, 2))
    assert [isinstance(door.admit(_bearer("shop-key-1"), "", 0.0), Admitted) for _ in range(3)] == [True, True, False]
    assert all(isinstance(door.admit(_bearer("hashed-key-1"), "", 0.0), Admitted) for _ in range(50))
    refused = door.admit(_bearer("hashed-key-1"), "", 0.0)
    assert isinstance(refused, Refused)
    assert (refused.status, refused.client) == (429, "batch")
    assert b'ratelimit-policy: "requests";q=50;w=300' in refused.headers
    assert b"retry-after: 6\r\n" in refused.headers
    assert isinstance(door.admit(_bearer("hashed-key-1"), "", 6.0), Admitted)


def test_without_keys_addresses_have_their_own_limits_and_the_table_is_bounded() -> None:
    door = Door(rate=Rate(1.0, 1), client_header=b"x-forwarded-for")
    assert isinstance(door.admit({}, "10.0.0.1", 0.0), Admitted)
    assert isinstance(door.admit({}, "10.0.0.1", 0.0), Refused)
    assert isinstance(door.admit({}, "10.0.0.2", 0.0), Admitted)
    # What the client wrote itself before the gateway's entry changes nothing.
    for n, kind in enumerate((Admitted, Refused)):
        assert isinstance(door.admit({b"x-forwarded-for": b"9.9.9.%d, 10.0.0.3" % n}, "10.0.0.2", 0.0), kind)
    for n in range(ADDRESSES + 100):
        door.admit({}, f"a{n}", 0.0)
    samples = {sample.name: sample.value for metric in door.collect([], []) for sample in metric.samples}
    assert samples["serinus_rate_limit_buckets"] == ADDRESSES


def test_metrics_tell_a_bounded_number_of_clients_apart(tmp_path: Path) -> None:
    text = "\n".join(f"client-{n} long-key-{n}" for n in range(MAX_NAMES + 20))
    door = _door(tmp_path, text)
    for n in range(MAX_NAMES + 20):
        door.admit(_bearer(f"long-key-{n}"), "", 0.0)
    door.admit(_bearer("long-key-0"), "", 0.0)
    counts = {
        sample.labels["client"]: sample.value
        for metric in door.collect([], [])
        for sample in metric.samples
        if sample.name == "serinus_client_requests_total"
    }
    assert len(counts) == MAX_NAMES + 1
    assert (counts["client-0"], counts["others"]) == (2, 20)
    assert not any("long-key" in client for client in counts)


def test_a_changed_secret_is_read_and_a_broken_one_is_not_used(tmp_path: Path) -> None:
    """As the kubelet does it: a new directory, and a link that is turned to it."""
    for version, text in (("v1", "shop shop-key-1"), ("v2", "shop shop-key-2"), ("v3", "broken")):
        (tmp_path / version).mkdir()
        (tmp_path / version / "keys").write_text(text)
    link = tmp_path / "..data"
    link.symlink_to("v1")
    (tmp_path / "keys").symlink_to("..data/keys")
    file = WatchedFile(tmp_path / "keys", read_keys)
    door = Door(keys=file)

    def turn(version: str) -> None:
        (tmp_path / "new").symlink_to(version)
        (tmp_path / "new").replace(link)
        door.refresh()

    assert isinstance(door.admit(_bearer("shop-key-1"), "", 0.0), Admitted)
    door.refresh()
    assert file.reloads == 0
    turn("v2")
    assert isinstance(door.admit(_bearer("shop-key-1"), "", 0.0), Refused)
    assert isinstance(door.admit(_bearer("shop-key-2"), "", 0.0), Admitted)
    turn("v3")
    assert isinstance(door.admit(_bearer("shop-key-2"), "", 0.0), Admitted)
    link.unlink()
    door.refresh()
    assert isinstance(door.admit(_bearer("shop-key-2"), "", 0.0), Admitted)
    assert (file.reloads, file.failures) == (1, 2)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({b"x-request-timeout": b"2"}, 2.0),
        ({b"x-request-timeout": b"250ms"}, 0.25),
        ({b"request-timeout": b"1.5"}, 1.5),
        ({b"x-envoy-expected-rq-timeout-ms": b"300"}, 0.3),
        ({b"x-envoy-expected-rq-timeout-ms": b"soon"}, None),
        ({b"x-envoy-expected-rq-timeout-ms": b"0"}, None),
        ({b"grpc-timeout": b"50m"}, 0.05),
        ({b"grpc-timeout": b"2S", b"x-request-timeout": b"1", b"x-envoy-expected-rq-timeout-ms": b"1500"}, 1.0),
    ],
)
def test_timeouts_are_understood_and_the_shortest_counts(headers: dict[bytes, bytes], seconds: float | None) -> None:
    assert timeout_of(headers) == seconds


@pytest.mark.parametrize(
    ("name", "value"),
    [(b"x-request-timeout", b"0"), (b"x-request-timeout", b"soon"), (b"request-timeout", b"-1"),
     (b"grpc-timeout", b"123456789S"), (b"x-priority", b"0x1"), (b"x-priority", b"10")],
)  # fmt: skip
def test_what_cannot_be_understood_is_refused_with_advice(name: bytes, value: bytes) -> None:
    refused = Door().admit({name: value}, "", 0.0)
    assert isinstance(refused, Refused)
    assert (refused.status, refused.message.startswith(name.decode())) == (400, True)


@given(st.binary(max_size=30))
def test_no_header_makes_more_than_a_refusal(value: bytes) -> None:
    for name in (b"x-request-timeout", b"request-timeout", b"grpc-timeout", b"x-envoy-expected-rq-timeout-ms"):
        try:
            found = timeout_of({name: value})
        except InvalidRequestError:
            continue
        assert found is None or found > 0 or name == b"grpc-timeout"


def test_parameters_of_the_protocol() -> None:
    assert (timeout_parameter(250_000), timeout_parameter(0)) == (0.25, None)
    assert (priority_parameter(3), priority_parameter(0)) == (3, None)
    for wrong in (-1, 1.5, "1", True, None):
        with pytest.raises(InvalidRequestError):
            timeout_parameter(wrong)
        with pytest.raises(InvalidRequestError):
            priority_parameter(wrong)


def test_priorities_are_bounded_by_what_the_key_may_use(tmp_path: Path) -> None:
    door = _door(tmp_path, best=3)

    def got(key: str, level: bytes) -> int:
        admitted = door.admit({**_bearer(key), b"x-priority": level}, "", 0.0)
        assert isinstance(admitted, Admitted)
        return admitted.priority

    assert [got("shop-key-1", level) for level in (b"0", b"1", b"3", b"5", b"9")] == [0, -2, -2, 0, 4]
    assert [got("hashed-key-1", level) for level in (b"0", b"1", b"9")] == [2, 2, 4]
    assert (priority_of({}), ticket_priority(None, 1)) == (None, 0)


def test_deadlines_count_from_the_arrival() -> None:
    admitted = Door().admit({b"x-request-timeout": b"2"}, "", 100.0)
    assert admitted == Admitted(deadline=102.0)
    assert Door().admit({}, "", 100.0) is Door().admit({}, "", 200.0)
