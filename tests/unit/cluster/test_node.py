"""What the node's programs are told, and what is said where it cannot run."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path

import pytest

from cluster import addons_gateway, addons_host, packages
from cluster.__main__ import exports, parser
from cluster.apiserver import free_ports
from cluster.certs import Authority
from cluster.containerd import Containerd
from cluster.controlplane import ControlPlane
from cluster.kubelet import kubelet_config
from cluster.node import Node
from cluster.provider import ClusterInfo


def test_other_systems_are_told_what_to_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    assert "needs Linux; use CLUSTER=kind" in (Node().unavailable() or "")


def test_other_users_are_told_to_become_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "sudo" in (Node().unavailable() or "")


def test_without_apt_the_missing_files_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    monkeypatch.setattr(packages, "NODE", {"etcd-server": "/no/such/etcd"})
    assert "/no/such/etcd" in (Node().unavailable() or "")


def test_cluster_that_never_ran_is_not_running(cache: Path) -> None:
    assert Node().running() is None
    assert Node().status() == []


def test_apiserver_logs_writes(tmp_path: Path) -> None:
    plane = ControlPlane(tmp_path, Authority(tmp_path), "127.0.0.1", 6443, Path("/usr/bin/etcd"), 2379, "10.96.0.0/16")
    command = [str(part) for part in plane.apiserver_command(plane.node_arguments())]
    assert f"--audit-log-path={tmp_path / 'audit.log'}" in command
    assert "--enable-aggregator-routing=true" in command
    assert "--kubelet-preferred-address-types=InternalIP" in command
    assert "--unsafe-no-fsync" in plane.etcd_command()


def test_kubelet_accepts_old_control_groups_and_full_disks(tmp_path: Path) -> None:
    config = kubelet_config(tmp_path, Authority(tmp_path), tmp_path / "c.sock")
    assert config["failCgroupV1"] is False
    assert config["evictionHard"]["nodefs.available"] == "0%"
    assert config["cgroupRoot"] == "/serinus"


def test_containerd_keeps_to_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "program", lambda name: Path("/usr/bin") / name)
    Containerd(tmp_path).configure()
    text = (tmp_path / "containerd" / "config.toml").read_text()
    assert "restrict_oom_score_adj = true" in text
    for key in ("root", "state", "address"):
        assert f'{key} = "{tmp_path}' in text


def test_host_addons_have_endpoints() -> None:
    documents = addons_host.manifests()
    slices = [document for document in documents if document["kind"] == "EndpointSlice"]
    assert {document["metadata"]["name"] for document in slices} == {"kube-dns", "metrics-server"}
    dns = next(d for d in documents if d["kind"] == "Service" and d["metadata"]["name"] == "kube-dns")
    assert dns["spec"]["clusterIP"] == "10.96.0.10"


def test_placeholders_of_the_chart_are_filled() -> None:
    assert addons_gateway.fill("a: ${A}\nb: $B {C}", {"A": "1"}) == "a: 1\nb: $B {C}"
    with pytest.raises(KeyError):
        addons_gateway.fill("${UNKNOWN}", {})


def test_free_ports_differ() -> None:
    api, etcd, peer = free_ports()
    assert peer == etcd + 1
    assert api not in (etcd, peer)


def test_environment_is_quoted_for_the_shell() -> None:
    info = ClusterInfo(Path("/a b/kubeconfig"), Path("/kubectl"), Path("/helm"), gateway=("ns", "gw"))
    assert "export KUBECONFIG='/a b/kubeconfig'" in exports(info)
    assert "export GATEWAY=ns/gw" in exports(info)
    assert "PROMETHEUS" not in exports(info)


def test_command_line() -> None:
    options = parser().parse_args(["--provider", "kind", "image", "runtime", "--load"])
    assert (options.provider, options.command, options.name, options.load) == ("kind", "image", "runtime", True)
