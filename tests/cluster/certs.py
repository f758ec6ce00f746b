"""Certificates and keys for a cluster's components, made with the openssl program."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from cluster.commands import output

_CONFIG = "[req]\ndistinguished_name = dn\nprompt = no\n[dn]\n"
_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
_DAYS = "3650"


@dataclass(frozen=True)
class Request:
    """One certificate to make: its file name, subject and what it may be used for."""

    file: str
    common_name: str
    organization: str = ""
    names: Sequence[str] = ()
    authority: str = "ca"

    def extensions(self) -> list[str]:
        """The X.509 extensions, as openssl writes them. A certificate with names serves; one without is a client's."""
        usage = "serverAuth,clientAuth" if self.names else "clientAuth"
        lines = [
            "basicConstraints=critical,CA:FALSE",
            "keyUsage=critical,digitalSignature",
            f"extendedKeyUsage={usage}",
        ]
        if self.names:
            lines.append("subjectAltName=" + ",".join(f"{_kind(name)}:{name}" for name in self.names))
        return lines

    def subject(self) -> str:
        """The subject, as openssl's ``-subj`` takes it."""
        organization = f"/O={self.organization}" if self.organization else ""
        return f"{organization}/CN={self.common_name}"


def _kind(name: str) -> str:
    return "IP" if ":" in name or name.replace(".", "").isdigit() else "DNS"


def server_names(service_address: str, *addresses: str) -> list[str]:
    """What the API server's certificate has to be valid for: its Service's names and every address it answers at."""
    names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"]
    return [*names, "localhost", "127.0.0.1", service_address, *(a for a in addresses if a != "127.0.0.1")]


class Authority:
    """A folder of certificates signed by authorities of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def create(self, authorities: Sequence[str], requests: Sequence[Request]) -> None:
        """Make the authorities (files NAME.crt and NAME.key), the token-signing key sa.key/sa.pub and every request."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self.folder / "openssl.cnf").write_text(_CONFIG)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(self._root, authorities))
            list(pool.map(self._sign, requests))
        output(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", self.key("sa")])
        output(["openssl", "ec", "-in", self.key("sa"), "-pubout", "-out", self.folder / "sa.pub"])

    def certificate(self, name: str) -> Path:
        """The file of a certificate."""
        return self.folder / f"{name}.crt"

    def key(self, name: str) -> Path:
        """The file of a private key."""
        return self.folder / f"{name}.key"

    def _root(self, name: str) -> None:
        extensions = ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign,digitalSignature"]
        self._request(name, f"/CN=serinus-{name}", extensions, [])

    def _sign(self, request: Request) -> None:
        issuer = ["-CA", str(self.certificate(request.authority)), "-CAkey", str(self.key(request.authority))]
        self._request(request.file, request.subject(), request.extensions(), issuer)

    def _request(self, file: str, subject: str, extensions: Sequence[str], issuer: Sequence[str]) -> None:
        command: list[str | Path] = ["openssl", "req", "-x509", "-config", self.folder / "openssl.cnf", *_KEY, *issuer]
        command += ["-days", _DAYS, "-subj", subject, "-keyout", self.key(file), "-out", self.certificate(file)]
        for extension in extensions:
            command += ["-addext", extension]
        output(command)
