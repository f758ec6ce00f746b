"""JSON Web Tokens at the door: real keys, real signatures, a real HTTP server with the issuer's keys."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from serinus_runtime.config import Config, from_environment
from serinus_runtime.failures import FailureError
from serinus_runtime.ingress import jwks
from serinus_runtime.ingress.jwks import UrlSource
from serinus_runtime.ingress.tokenopening import open_tokens
from serinus_runtime.ingress.tokens import TokenError, Tokens
from unit.runtime.ports import until
from unit.runtime.support import WAIT, GateEngine, Live, gated, infer_body, request

ISSUER, AUDIENCE, NOW = "https://login.example", "fraud", 1_800_000_000.0
RSA, OTHER, EC, ED = (
    rsa.generate_private_key(65537, 2048), rsa.generate_private_key(65537, 2048),
    ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate(),
)  # fmt: skip
SMALL = rsa.generate_private_key(65537, 1024)


def entry(key: Any, kid: str, **more: str) -> dict[str, Any]:
    """The public half of `key` as a set shows it."""
    kind = {rsa.RSAPrivateKey: "RS256", ec.EllipticCurvePrivateKey: "ES256"}
    name = next((name for base, name in kind.items() if isinstance(key, base)), "EdDSA")
    made: dict[str, Any] = jwt.get_algorithm_by_name(name).to_jwk(key.public_key(), as_dict=True)
    return {**made, "kid": kid, **more}


def key_set(*entries: dict[str, Any]) -> bytes:
    return json.dumps({"keys": list(entries)}).encode()


def token(key: Any = RSA, kid: str | None = "r1", algorithm: str = "RS256", **claims: Any) -> bytes:
    told = {"iss": ISSUER, "aud": AUDIENCE, "sub": "shop", "exp": NOW + 600, **claims}
    told = {name: value for name, value in told.items() if value is not None}
    return jwt.encode(told, key, algorithm, {"kid": kid} if kid else None).encode()


class Source:
    """Keys that the test sets."""

    def __init__(self, data: bytes) -> None:
        self.keys = jwks.parse(data) if data else {}
        self.version = self.failures = 0
        self.missing = 0

    def refresh(self, now: float) -> None:
        return

    def missed(self, now: float) -> None:
        self.missing += 1


def made(source: Any = None, wall: Callable[[], float] = lambda: NOW, **more: Any) -> Tokens:
    source = source or Source(key_set(entry(RSA, "r1"), entry(EC, "e1"), entry(ED, "d1")))
    base: dict[str, Any] = {"issuer": ISSUER, "audiences": (AUDIENCE, "b"), "algorithms": ("RS256", "ES256", "EdDSA")}
    return Tokens(source, wall=wall, clock=lambda: 0.0, **{**base, **more})


@pytest.mark.parametrize(("key", "kid", "algorithm"), [(RSA, "r1", "RS256"), (EC, "e1", "ES256"), (ED, "d1", "EdDSA")])
def test_a_good_token_names_its_subject(key: Any, kid: str, algorithm: str) -> None:
    tokens = made()
    shown = token(key, kid, algorithm, sub="auth0|42", aud=["x", "b"])
    for _ in range(2):
        found = tokens.check(shown)
        assert (found.name, sorted(found.scopes)) == ("jwt:auth0|42", ["async", "infer", "read"])
    counts = {s.labels["outcome"]: s.value for f in tokens.collect([], []) for s in f.samples if "outcome" in s.labels}
    assert counts == {"checked": 1, "remembered": 1, "refused": 0}


@pytest.mark.parametrize(
    ("scope", "controls"),
    [("openid serinus:control", True), ("serinus:controls", False), ("control", False), (["serinus:control"], False)],
)
def test_only_a_token_that_says_so_may_load_and_unload(scope: object, controls: bool) -> None:
    assert ("control" in made().check(token(scope=scope)).scopes) == controls


def _none() -> bytes:
    return jwt.encode({"iss": ISSUER, "aud": AUDIENCE, "sub": "x", "exp": NOW + 9}, None, "none").encode()


def _confused() -> bytes:
    """Signed by HMAC with the text of the public key, which a careless server takes for a secret."""
    return jwt.encode(
        {"iss": ISSUER, "aud": AUDIENCE, "sub": "x", "exp": NOW + 9}, "k" * 64, "HS256", {"kid": "r1"}
    ).encode()


@pytest.mark.parametrize(
    ("shown", "why"),
    [
        (token(OTHER), "signature is wrong"),
        (token()[:-9] + b"AAAAAAAAA", "signature is wrong"),
        (token(iss="https://evil.example"), "another issuer"),
        (token(iss=None), "no 'iss'"),
        (token(aud="other"), "another audience"),
        (token(aud=None), "no 'aud'"),
        (token(exp=None), "no 'exp'"),
        (token(exp=NOW - 31), "has expired"),
        (token(exp=True), "'exp' is not a time"),
        (token(exp="soon"), "'exp' is not a time"),
        (token(nbf=NOW + 31), "not valid yet"),
        (token(iat=NOW + 31), "not valid yet"),
        (token(sub=None), "no 'sub'"),
        (token(sub='a","code":200'), "subject must be"),
        (token(sub="a" * 129), "subject must be"),
        (token(kid="r9"), "a key that the issuer does not show"),
        (token(kid=None), "a key that the issuer does not show"),
        (token(OTHER, "e1"), "not that of its key"),
        (token(algorithm="RS512"), "algorithm is not one of"),
        (_none(), "algorithm is not one of"),
        (_confused(), "algorithm is not one of"),
        (token(pad="x" * 9000), "longer than 8192"),
        (b"ey.ey.ey", "cannot be read"),
        (b"", "cannot be read"),
    ],
)  # fmt: skip
def test_what_is_not_accepted(shown: bytes, why: str) -> None:
    tokens = made()
    with pytest.raises(TokenError, match=why) as caught:
        tokens.check(shown)
    assert shown.decode()[:20] not in str(caught.value) or not shown


def test_clocks_may_differ_by_half_a_minute_and_a_token_that_is_remembered_expires() -> None:
    now = [NOW]
    tokens = made(wall=lambda: now[0])
    shown = token(exp=NOW + 10, nbf=NOW + 29)
    assert tokens.check(shown).name == "jwt:shop"
    now[0] = NOW + 39.9
    assert tokens.check(shown).name == "jwt:shop"
    for later in (NOW + 40, NOW + 3600):
        now[0] = later
        with pytest.raises(TokenError, match="has expired"):
            tokens.check(shown)
    now[0] = NOW - 3600
    assert tokens.check(shown).name == "jwt:shop", "a clock that was set back finds it remembered, and not over"


def test_a_key_that_is_withdrawn_takes_its_tokens_with_it() -> None:
    source = Source(key_set(entry(RSA, "r1")))
    tokens = made(source)
    shown = token()
    tokens.check(shown)
    source.keys, source.version = jwks.parse(key_set(entry(OTHER, "r2"))), 1
    with pytest.raises(TokenError, match="does not show"):
        tokens.check(shown)
    assert source.missing == 1
    assert tokens.check(token(OTHER, "r2")).name == "jwt:shop"


def test_the_only_key_needs_no_name() -> None:
    assert made(Source(key_set(entry(RSA, "")))).check(token(kid=None)).name == "jwt:shop"


def test_without_keys_it_is_worth_asking_again() -> None:
    with pytest.raises(TokenError) as caught:
        made(Source(b"")).check(token())
    assert caught.value.later


def test_a_set_holds_only_keys_for_signatures() -> None:
    secret = {"kty": "oct", "k": "c2VjcmV0", "kid": "s"}
    data = key_set(
        entry(RSA, "r1"), entry(RSA, "e", use="enc"), entry(SMALL, "small"), secret, {"kty": "RSA", "kid": "bad"},
        entry(EC, "e1", alg="ES256"),
    )  # fmt: skip
    assert sorted(jwks.parse(data)) == ["e1", "r1"]
    for wrong in (b"", b"[]", b"{}", b'{"keys": 1}', key_set(secret), key_set(*[secret] * 101), b"[" * 100_000):
        with pytest.raises(ValueError):  # noqa: PT011 - each has a text of its own
            jwks.parse(wrong)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([b"", b"eyJhbGciOiJSUzI1NiJ9."]))
def test_whatever_is_shown_is_refused_in_words(data: bytes, head: bytes) -> None:
    with pytest.raises(TokenError):
        made().check(head + data)


class Issuer:
    """Serves a key set."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.status = 200
        self.asked = 0
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked += 1
                self.send_response(issuer.status)
                self.send_header("location", "/elsewhere")
                self.send_header("content-length", str(len(issuer.data)))
                self.end_headers()
                self.wfile.write(issuer.data)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/keys"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    served = Issuer(key_set(entry(RSA, "r1")))
    yield served
    served.close()


def test_keys_at_an_address_are_read_again(issuer: Issuer) -> None:
    source = UrlSource(issuer.url, 300.0)

    def at(now: float) -> None:
        source.refresh(now)
        source.wait(WAIT)

    at(1000.0)
    assert (list(source.keys), source.version) == (["r1"], 1)
    at(1299.0)
    assert issuer.asked == 1
    at(1300.0)
    assert (issuer.asked, source.version) == (2, 1), "the same keys are no news"
    issuer.data = key_set(entry(OTHER, "r2"))
    source.missed(1301.0)
    at(1301.0)
    assert issuer.asked == 2, "not more often than every ten seconds"
    at(1310.0)
    assert (list(source.keys), source.version) == (["r2"], 2)


@pytest.mark.parametrize(("status", "data"), [(500, b""), (302, b""), (200, b"no"), (200, b" " * ((1 << 20) + 1))])
def test_keys_that_cannot_be_read_leave_the_old_ones(issuer: Issuer, status: int, data: bytes) -> None:
    source = UrlSource(issuer.url, 300.0)
    source.refresh(0.0)
    source.wait(WAIT)
    issuer.status, issuer.data = status, data
    source.refresh(300.0)
    source.wait(WAIT)
    assert (list(source.keys), source.failures) == (["r1"], 1)


def _live(**more: Any) -> Live:
    base = {"jwt_issuer": ISSUER, "jwt_audience": (AUDIENCE,)}
    return Live(gated(GateEngine()), **{**base, **more})


def _ask(live: Live, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
    return request(live.port, "POST", "/v2/models/model/infer", infer_body([1, 2, 3]), headers)


def _bearer(shown: bytes) -> dict[str, str]:
    return {"Authorization": f"Bearer {shown.decode()}"}


def _now(**claims: Any) -> bytes:
    return token(exp=time.time() + 600, **claims)


def test_a_server_with_tokens_and_keys(tmp_path: Path) -> None:
    keys, shown, log = tmp_path / "keys", tmp_path / "jwks.json", tmp_path / "log"
    keys.write_text("shop shop-key-1\n")
    shown.write_bytes(key_set(entry(RSA, "r1")))
    with _live(jwt_jwks=str(shown), api_keys_file=keys, prediction_log=str(log), grpc_port=0) as live:
        assert _ask(live, {})[0] == 401
        assert _ask(live, {"X-API-Key": "shop-key-1"})[0] == 200
        assert _ask(live, _bearer(_now()))[0] == 200
        status, headers, body = _ask(live, _bearer(_now(aud="other")))
        assert (status, json.loads(body)) == (401, {"error": "the token is for another audience"})
        assert headers["www-authenticate"] == 'Bearer realm="serinus", error="invalid_token"'
        metrics = request(live.server.metrics_port, "GET", "/metrics")[2]
        assert b"serinus_jwt_tokens_total{" in metrics
        assert b'client="jwt:shop"' in metrics
        with grpc.insecure_channel(f"127.0.0.1:{live.server.grpc_port}") as channel:
            call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            wrong = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNAUTHENTICATED)
            for bearer, code in zip((_now(), _now(iss="x")), wrong, strict=True):
                with pytest.raises(grpc.RpcError) as caught:
                    call(b"\x0a\x05model", metadata=(("authorization", f"Bearer {bearer.decode()}"),), timeout=WAIT)
                found: Any = caught.value
                assert found.code() is code
        shown.write_bytes(key_set(entry(OTHER, "r1")))
        until(lambda: _ask(live, _bearer(_now()))[0] == 401)
    clients = [json.loads(line).get("client") for line in log.read_text().splitlines()]
    assert clients[1:3] == ["shop", "jwt:shop"]


def test_a_server_whose_issuer_is_away_comes_to_know_the_keys(issuer: Issuer) -> None:
    issuer.status = 500
    with _live(jwt_jwks=issuer.url) as live:
        status, headers, _ = _ask(live, _bearer(_now()))
        assert (status, headers["retry-after"]) == (503, "1")
        assert _ask(live, {"X-API-Key": "whatever"})[0] in (401, 503)
        issuer.status = 200
        until(lambda: _ask(live, _bearer(_now()))[0] == 200)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"SERINUS_JWT_JWKS": "http://keys.example/"}, "write https://"),
        ({"SERINUS_JWT_JWKS": "keys.json"}, "write the path of a file"),
        ({"SERINUS_JWT_ALGORITHMS": "HS256"}, "write some of RS256"),
        ({"SERINUS_JWT_ISSUER": ""}, "SERINUS_JWT_ISSUER: is needed"),
        ({"SERINUS_JWT_AUDIENCE": ""}, "SERINUS_JWT_AUDIENCE: is needed"),
        ({}, "No such file"),
    ],
)
def test_settings_that_cannot_be(more: dict[str, str], why: str, tmp_path: Path) -> None:
    base = {"SERINUS_JWT_JWKS": str(tmp_path / "none"), "SERINUS_JWT_ISSUER": ISSUER, "SERINUS_JWT_AUDIENCE": AUDIENCE}
    with pytest.raises(FailureError, match=why):
        open_tokens(from_environment({**base, **more}))


def test_without_tokens_nothing_is_imported() -> None:
    assert open_tokens(Config()) is None
