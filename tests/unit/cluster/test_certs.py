"""Certificates: what they are valid for, and that openssl agrees."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cluster import identities
from cluster.certs import Authority, Request, server_names
from cluster.commands import output


def test_server_answers_under_its_service_names_and_addresses() -> None:
    names = server_names("10.96.0.1", "10.99.0.1")
    assert {"kubernetes.default.svc", "localhost", "127.0.0.1", "10.96.0.1", "10.99.0.1"} <= set(names)
    assert len(names) == len(set(names))


def test_addresses_and_names_are_told_apart() -> None:
    extensions = Request("a", "a", names=["kubernetes", "10.96.0.1", "::1", "node-1.local"]).extensions()
    assert "subjectAltName=DNS:kubernetes,IP:10.96.0.1,IP:::1,DNS:node-1.local" in extensions


def test_client_certificate_cannot_serve() -> None:
    extensions = Request("a", "a").extensions()
    assert "extendedKeyUsage=clientAuth" in extensions
    assert "basicConstraints=critical,CA:FALSE" in extensions


def test_subject_names_user_and_group() -> None:
    assert Request("k", "system:node:n", "system:nodes").subject() == "/O=system:nodes/CN=system:node:n"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_node_certificates_are_signed_by_the_right_authority(tmp_path: Path) -> None:
    pki = Authority(tmp_path / "pki")
    identities.create_node(pki)
    for name, authority in (("apiserver", "ca"), ("user-coredns", "ca"), ("front-proxy", "front-proxy-ca")):
        output(["openssl", "verify", "-CAfile", pki.certificate(authority), pki.certificate(name)])
    subject = output(["openssl", "x509", "-in", pki.certificate("admin"), "-noout", "-subject"])
    assert "system:masters" in subject
    text = output(["openssl", "x509", "-in", pki.certificate("apiserver"), "-noout", "-ext", "subjectAltName"])
    assert "IP Address:10.96.0.1" in text
    files = identities.kubeconfigs(pki, "https://10.99.0.1:6443", tmp_path)
    assert files["admin"] == tmp_path / "kubeconfig"
    assert all(file.stat().st_mode & 0o077 == 0 for file in files.values())
