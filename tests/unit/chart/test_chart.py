"""The chart renders what it promises, and the roles hold what the operator's kinds need and no more."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from serinus.api import GROUP, PLURAL
from serinus.cluster.kinds import OPTIONAL, OWNED, POD
from serinus.notify.configured import read
from serinus.settings import OperatorSettings

ROOT = Path(__file__).parents[3]
CHART = ROOT / "charts/serinus"
Object = dict[str, Any]
MANAGED = {"list", "watch", "create", "patch", "delete"}


def _helm() -> Path:
    cache = Path(os.environ.get("SERINUS_CACHE", Path.home() / ".cache/serinus"))
    pinned = re.search(r"helm\.sh/helm/v\d+ (v\S+)", (ROOT / "tests/cluster/tools/helm/go.mod").read_text())
    assert pinned, "tests/cluster/tools/helm/go.mod pins no helm"
    return cache / "tools" / f"helm-{pinned[1]}" / "helm"


HELM = _helm()
pytestmark = pytest.mark.skipif(not HELM.is_file(), reason=f"no helm at {HELM}: `python -m cluster up` builds it")


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the pinned helm."""
    return subprocess.run([HELM, *arguments], capture_output=True, text=True, timeout=60, check=False)


def render(*sets: str) -> list[Object]:
    """The chart's objects with these `--set`s, as `helm install mine -n ops` would send them."""
    options = [option for pair in sets for option in ("--set", pair)]
    done = helm("template", "mine", str(CHART), "--namespace", "ops", *options)
    assert done.returncode == 0, done.stderr
    return [obj for obj in yaml.safe_load_all(done.stdout) if obj]


def of(objects: list[Object], kind: str) -> list[Object]:
    """The objects of a kind."""
    return [obj for obj in objects if obj["kind"] == kind]


def grants(rules: list[Object]) -> dict[str, set[str]]:
    """`group/resource` -> verbs."""
    found: dict[str, set[str]] = {}
    for rule in rules:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                found.setdefault(f"{group}/{resource}", set()).update(rule["verbs"])
    return found


def environment(objects: list[Object]) -> dict[str, str]:
    """The operator's environment, as far as it is literal."""
    (deployment,) = of(objects, "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return {entry["name"]: entry.get("value", "from-a-field") for entry in container["env"]}


def test_lint() -> None:
    done = helm("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_cluster_role_is_exactly_what_the_operator_needs() -> None:
    (role,) = of(render(), "ClusterRole")
    expected: dict[str, set[str]] = {
        f"{GROUP}/{PLURAL}": {"list", "watch"},
        f"{GROUP}/{PLURAL}/status": {"patch"},
        f"{GROUP}/{PLURAL}/finalizers": {"update"},
        "apps/deployments/scale": {"patch"},
        f"{POD.group}/{POD.plural}": {"list", "watch"},
        "events.k8s.io/events": {"create"},
        "apiextensions.k8s.io/customresourcedefinitions": {"list", "watch"},
    }
    expected |= {f"{kind.group}/{kind.plural}": MANAGED for kind in (*OWNED, *OPTIONAL)}
    assert grants(role["rules"]) == expected


def test_the_reference_lists_every_permission() -> None:
    text = (ROOT / "docs/reference/rbac.md").read_text()
    for name, verbs in grants(
        [rule for role in ("ClusterRole", "Role") for obj in of(render(), role) for rule in obj["rules"]]
    ).items():
        group, _, resource = name.partition("/")
        rows = [line for line in text.splitlines() if line.startswith(f"| {group or '(core)'} | {resource} ")]
        told = {verb for row in rows for verb in row.split("|")[3].replace(" ", "").split(",")}
        assert told == verbs, name


def test_config_maps_are_read_only_where_that_is_allowed() -> None:
    (role,) = of(render("rbac.readConfigMaps=true"), "ClusterRole")
    assert grants(role["rules"])["/configmaps"] == {"get"}
    for role in of(render("rbac.readConfigMaps=true", "watchNamespaces={fraud}"), "Role")[:1]:
        assert grants(role["rules"])["/configmaps"] == {"get"}


def test_the_secret_for_smoke_tests_is_mounted_and_not_read() -> None:
    objects = render("smokeTest.keySecret=smoke", "smokeTest.key=text")
    assert environment(objects)["SERINUS_SMOKE_KEY_FILE"] == "/etc/serinus/smoke/text"
    (deployment,) = of(objects, "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    assert {"name": "smoke-key", "secret": {"secretName": "smoke"}} in pod["volumes"]
    mounts = pod["containers"][0]["volumeMounts"]
    assert {"name": "smoke-key", "mountPath": "/etc/serinus/smoke", "readOnly": True} in mounts
    assert "secrets" not in yaml.safe_dump([obj for obj in objects if "Role" in obj["kind"]])
    assert "SERINUS_SMOKE_KEY_FILE" not in environment(render())


def test_hosts_of_webhooks() -> None:
    assert environment(render("webhooks.hosts={*.example.com,hooks}"))["SERINUS_WEBHOOK_HOSTS"] == "*.example.com,hooks"
    assert "SERINUS_WEBHOOK_HOSTS" not in environment(render())


def test_with_watched_namespaces_there_is_no_cluster_role() -> None:
    objects = render("watchNamespaces={fraud,search}")
    assert of(objects, "ClusterRole") == of(objects, "ClusterRoleBinding") == []
    assert {(obj["metadata"]["namespace"], obj["metadata"]["name"]) for obj in of(objects, "Role")} == {
        ("fraud", "mine-serinus"),
        ("search", "mine-serinus"),
        ("ops", "mine-serinus-lease"),
    }
    for binding in of(objects, "RoleBinding"):
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "mine-serinus", "namespace": "ops"}]
        assert binding["roleRef"]["name"] == binding["metadata"]["name"]
    assert environment(objects)["SERINUS_WATCH_NAMESPACES"] == "fraud,search"


def test_the_lease_role_names_its_lease() -> None:
    (role,) = of(render("lease.name=chosen"), "Role")
    assert grants(role["rules"]) == {
        "coordination.k8s.io/leases": {"create", "get", "update"},
        "/configmaps": {"get"},
    }
    assert [rule.get("resourceNames") for rule in role["rules"]] == [None, ["chosen"], ["serinus-freeze"]]
    assert environment(render("lease.name=chosen"))["SERINUS_LEASE_NAME"] == "chosen"


def test_the_operator_reads_its_whole_environment() -> None:
    env = environment(
        render("watchNamespaces={fraud,search}", "lease.duration=8s", "evidence.interval=1s", "logFormat=text")
    )
    settings = OperatorSettings.from_env(env)
    assert settings.watch_namespaces == ("fraud", "search")
    assert (settings.lease_duration, settings.tick, settings.log_format) == (8, 1, "text")
    assert settings.prometheus_url == "http://prometheus-server.monitoring.svc"
    assert settings.runtime_image == "serinus-runtime:dev"
    assert settings.identity == settings.lease_namespace == "from-a-field"


def test_the_pod_passes_the_restricted_level_and_spreads() -> None:
    objects = render()
    (deployment,) = of(objects, "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert deployment["spec"]["replicas"] == 2
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["image"] == "serinus-operator:dev"
    assert len(pod["topologySpreadConstraints"]) == 2
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    selector = deployment["spec"]["selector"]["matchLabels"]
    assert selector.items() <= labels.items()
    (budget,) = of(objects, "PodDisruptionBudget")
    assert budget["spec"]["selector"]["matchLabels"] == selector


def test_receivers_are_mounted_and_read_as_the_operator_expects_them(tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    told = [{"type": "Slack", "receiver": "team", "events": ["Failed"]}]
    values.write_text(yaml.safe_dump({"notifications": {"all": told, "secretName": "addresses"}}))
    done = helm("template", "mine", str(CHART), "--namespace", "ops", "-f", str(values))
    assert done.returncode == 0, done.stderr
    objects = [obj for obj in yaml.safe_load_all(done.stdout) if obj]
    settings = OperatorSettings.from_env(environment(objects))
    (deployment,) = of(objects, "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    mounts = {each["mountPath"]: each["name"] for each in pod["containers"][0]["volumeMounts"]}
    volumes = {each["name"]: each for each in pod["volumes"]}
    assert settings.notifications is not None
    assert volumes[mounts[str(settings.receivers)]]["secret"]["secretName"] == "addresses"
    source = volumes[mounts[str(settings.notifications.parent)]]["configMap"]["name"]
    (stored,) = [obj for obj in of(objects, "ConfigMap") if obj["metadata"]["name"] == source]
    copy = tmp_path / settings.notifications.name
    copy.write_text(stored["data"][settings.notifications.name])
    assert [each.model_dump(mode="json", exclude_none=True) for each in read(copy)] == told
    plain = OperatorSettings.from_env(environment(render()))
    assert (plain.notifications, plain.receivers) == (None, None)


def test_scraping_is_by_annotation_or_by_pod_monitor() -> None:
    def annotations(objects: list[Object]) -> Object:
        found: Object = of(objects, "Deployment")[0]["spec"]["template"]["metadata"].get("annotations", {})
        return found

    plain, monitored = render(), render("podMonitor.enabled=true")
    assert annotations(plain)["prometheus.io/port"] == "8080"
    assert of(plain, "PodMonitor") == []
    assert annotations(monitored) == {}
    assert len(of(monitored, "PodMonitor")) == 1


def test_the_crd_is_kept_upgraded_and_optional() -> None:
    (crd,) = of(render(), "CustomResourceDefinition")
    assert crd["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    plain = yaml.safe_load((ROOT / "crds/modeldeployments.serving.serinus.dev.yaml").read_text())
    assert crd["spec"] == plain["spec"]
    assert "annotations" not in of(render("crds.keep=false"), "CustomResourceDefinition")[0]["metadata"]
    assert of(render("crds.install=false"), "CustomResourceDefinition") == []


def test_one_replica_has_no_budget_that_would_block_a_drain() -> None:
    assert of(render("replicas=1"), "PodDisruptionBudget") == []


def test_every_object_has_the_recommended_labels() -> None:
    for obj in render("podMonitor.enabled=true"):
        labels = obj["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == "serinus", obj["kind"]
        assert labels["app.kubernetes.io/instance"] == "mine", obj["kind"]


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("prometheus.url=", "prometheus.url must be the http:// or https:// address of the Prometheus"),
        ("prometheus.url=prometheus:9090", "prometheus.url must be the http:// or https:// address of the Prometheus"),
        ("prometheus.ulr=http://a", "additional properties 'ulr' not allowed"),
        ("notifications.all[0].type=Pigeon", "/notifications/all/0"),
        ("replicas=0", "minimum: got 0, want 1"),
        ("lease.duration=15", "/lease/duration"),
        ("logFormat=yaml", "/logFormat"),
        ("watchNamespaces={A}", "/watchNamespaces/0"),
        ("image.digest=sha256:1", "/image/digest"),
    ],
)
def test_bad_values_are_refused(pair: str, message: str) -> None:
    done = helm("template", "mine", str(CHART), "--set", pair)
    assert done.returncode != 0
    assert message in done.stderr
