"""What kind is asked to do; kind itself is not run here."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster import addons_gateway, addons_prometheus_pod, engine, kind


def test_host_reaches_gateway_and_prometheus_through_the_loopback_device_only() -> None:
    (node,) = kind.config()["nodes"]
    assert {mapping["hostPort"] for mapping in node["extraPortMappings"]} == {kind.GATEWAY_PORT, kind.PROMETHEUS_PORT}
    assert {mapping["listenAddress"] for mapping in node["extraPortMappings"]} == {"127.0.0.1"}
    (port,) = kind.gateway_service()["patch"]["value"]["spec"]["ports"]
    assert port["nodePort"] == kind.GATEWAY_PORT


def test_users_kubeconfig_is_left_alone() -> None:
    file = Path("/cache/run/kind/kubeconfig")
    for command in (kind.create_command(file), kind.delete_command(file)):
        assert command[:3] in (["kind", "create", "cluster"], ["kind", "delete", "cluster"])
        assert command[command.index("--kubeconfig") + 1] == file
        assert command[command.index("--name") + 1] == "serinus"


def test_archives_are_loaded_into_our_cluster() -> None:
    expected = ["kind", "load", "image-archive", "--name", "serinus", Path("image.tar")]
    assert kind.load_command(Path("image.tar")) == expected


def test_kind_is_told_about_podman() -> None:
    assert kind.provider_environment("podman") == {"KIND_EXPERIMENTAL_PROVIDER": "podman"}
    assert kind.provider_environment("docker") == {}


def test_same_containerfile_with_docker() -> None:
    context = Path("/context")
    command = engine.build_command("docker", context, "serinus-runtime:dev")
    expected = ["docker", "build", "--tag", "serinus-runtime:dev", "--file", context / "Containerfile", context]
    assert command == expected


def test_without_an_engine_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "ENGINES", ("no-such-engine",))
    assert kind.Kind().unavailable() == "no container engine answers; start Docker or Podman"


def test_prometheus_keeps_annotated_pods() -> None:
    (job,) = addons_prometheus_pod.config()["scrape_configs"]
    targets = {rule.get("target_label") for rule in job["relabel_configs"]}
    assert {"namespace", "pod", "__address__", "__metrics_path__"} <= targets
    kinds = [manifest["kind"] for manifest in addons_prometheus_pod.manifests(30090)]
    assert kinds[0] == "Namespace"
    assert "Deployment" in kinds


def test_gateway_takes_routes_from_all_namespaces() -> None:
    gateway = addons_gateway.objects(None, kind.gateway_service())[-1]
    assert gateway["metadata"] == {"name": "public", "namespace": "gateway-system"}
    assert gateway["spec"]["listeners"][0]["allowedRoutes"] == {"namespaces": {"from": "All"}}
