"""Tokens that clients of a model show: `runtime.auth`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from serinus.api.base import ApiModel
from serinus.api.cel import Cel, Matching
from serinus.api.texts import DnsName, SecretKey
from serinus.api.units import Duration, Limits

Issuer = Annotated[
    str,
    Matching(
        "^[!#%-~]+$",
        "write the exact iss of the tokens, without spaces, quotes and $, such as https://login.example",
        512,
    ),
]
"""Who has issued a token."""

Audience = Annotated[
    str, Matching(r"^[!#%-+\--~]+$", "write the exact aud of the tokens, without spaces, quotes, commas and $", 256)
]
"""For whom a token is."""

JwksUrl = Annotated[
    str,
    Matching(
        r"^https://[A-Za-z0-9.:\[\]-]+(/[!#%-~]*)?$",
        "write https://HOST/PATH, without spaces, $, user name or password; keys that come without TLS prove nothing",
        1024,
    ),
]
"""Where an issuer shows its keys."""


class Algorithm(StrEnum):
    RS256 = "RS256"
    RS384 = "RS384"
    RS512 = "RS512"
    PS256 = "PS256"
    PS384 = "PS384"
    PS512 = "PS512"
    ES256 = "ES256"
    ES384 = "ES384"
    ES512 = "ES512"
    EDDSA = "EdDSA"


class KeysSecret(ApiModel):
    """A key set in a Secret of the same namespace. Pods notice when it changes."""

    secret_name: DnsName
    """Name of the Secret."""
    key: SecretKey = "jwks.json"
    """Key in the Secret."""


class KeysConfigMap(ApiModel):
    """A key set in a ConfigMap of the same namespace: the keys are public. Pods notice when it changes."""

    name: DnsName
    """Name of the ConfigMap."""
    key: SecretKey = "jwks.json"
    """Key in its data."""


class Jwks(ApiModel):
    """The issuer's public keys, a JSON Web Key Set: exactly one of these."""

    url: JwksUrl | None = None
    """Address that the pods ask, such as what jwks_uri says in the issuer's /.well-known/openid-configuration."""
    secret: KeysSecret | None = None
    """The set in a Secret."""
    config_map: KeysConfigMap | None = None
    """The set in a ConfigMap."""
    rules = (
        Cel(
            "[has(self.url), has(self.secret), has(self.configMap)].exists_one(each, each)",
            "write exactly one of url, secret and configMap",
        ),
    )


class Auth(ApiModel):
    """Tokens (JWT) that clients must show, beside API keys where there are any (docs/runtime/limits.md)."""

    issuer: Issuer
    """The exact iss of the tokens."""
    audience: Annotated[list[Audience], Field(min_length=1, max_length=16)]
    """Whose tokens are taken: one of these must be in aud."""
    jwks: Jwks
    """The issuer's public keys."""
    algorithms: Annotated[list[Algorithm], Field(min_length=1, max_length=10)] = [Algorithm.RS256, Algorithm.ES256]
    """Algorithms of signatures that are taken; there are none with a shared secret."""
    refresh: (
        Annotated[
            Duration,
            Limits(Duration, ">=", "10s", "write 10s or more; a few minutes are usual"),
            Limits(Duration, "<=", "24h", "write 24h or less"),
        ]
        | None
    ) = None
    """How often jwks.url is asked for new keys. Left out: every five minutes."""
    rules = (
        Cel(
            "!has(self.refresh) || !has(self.jwks) || has(self.jwks.url)",
            "refresh goes with jwks.url: files are read again when they change, so remove it",
            field_path=".refresh",
        ),
    )
