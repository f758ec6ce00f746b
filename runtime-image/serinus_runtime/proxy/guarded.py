"""What changes which models an engine serves: for keys and tokens whose scopes name `control`, where any are asked for.

Whether it is possible at all is the engine's own setting, such as Triton's --model-control-mode.
"""

from __future__ import annotations

import re

from serinus_runtime.http import Exchange
from serinus_runtime.state import Ingress, Refusal
from serinus_runtime.tickets import Ticket

_METHODS = (b"/RepositoryModelLoad", b"/RepositoryModelUnload", b"/HandleReloadConfigRequest")
"""Triton's and TF Serving's, over gRPC."""
_VERB = re.compile(rb"/(un)?load([/#;?&]|$)", re.IGNORECASE)


def changes_models(path: bytes) -> bool:
    """True for a load or an unload; `path` is that of a request, decoded, or a method's.

    Engines read odd paths in ways of their own (absolute targets, fragments, slashes more), so anything near counts.
    """
    if b"/repository/" in path:
        return _VERB.search(path) is not None
    return path.endswith(_METHODS)


def admit(ingress: Ingress, exchange: Exchange, ticket: Ticket, path: bytes) -> Refusal | None:
    """See `Ingress.admit`."""
    return ingress.admit_control(exchange, ticket) if changes_models(path) else ingress.admit(exchange, ticket)
