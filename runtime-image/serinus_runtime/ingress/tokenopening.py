"""Whether tokens are asked for, decided from the settings."""

from __future__ import annotations

import time
from pathlib import Path

from serinus_runtime.config import Config
from serinus_runtime.failures import FailureError, Reason
from serinus_runtime.ingress.jwks import FileSource, UrlSource
from serinus_runtime.ingress.tokens import KeySource, Tokens

_PATIENCE = 5.0


def open_tokens(config: Config) -> Tokens | None:
    """Raises FailureError(INVALID_CONFIG). An address that does not answer is asked again later."""
    if not config.jwt_jwks:
        return None
    for name, value in (("ISSUER", config.jwt_issuer), ("AUDIENCE", config.jwt_audience)):
        if not value:
            raise FailureError(
                Reason.INVALID_CONFIG,
                f"SERINUS_JWT_{name}: is needed with SERINUS_JWT_JWKS: a token for somebody else must not be good here",
            )
    source: KeySource
    try:
        if config.jwt_jwks.startswith("/"):
            source = FileSource(Path(config.jwt_jwks))
        else:
            source = UrlSource(config.jwt_jwks, config.jwt_refresh)
            source.refresh(time.monotonic())
            source.wait(_PATIENCE)
    except ModuleNotFoundError:
        raise FailureError(Reason.INVALID_CONFIG, "SERINUS_JWT_JWKS: needs pip install serinus-runtime[jwt]") from None
    except (OSError, ValueError) as error:
        raise FailureError(Reason.INVALID_CONFIG, f"SERINUS_JWT_JWKS: {error}") from None
    return Tokens(
        source,
        issuer=config.jwt_issuer,
        audiences=config.jwt_audience,
        algorithms=config.jwt_algorithms,
        wall=time.time,
        clock=time.monotonic,
    )
