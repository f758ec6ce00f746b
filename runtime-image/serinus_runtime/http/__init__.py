"""HTTP/1.1 without a framework: httptools parses, this package keeps the connection, the application gives meaning."""

from serinus_runtime.http.exchange import JSON, Application, Exchange
from serinus_runtime.http.limits import Limits
from serinus_runtime.http.protocol import HttpProtocol, connection
from serinus_runtime.http.site import Site

__all__ = ["JSON", "Application", "Exchange", "HttpProtocol", "Limits", "Site", "connection"]
