"""From plans to objects."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

from serinus.api.matching import Match
from serinus.api.runtime import BESIDE as BESIDE_ENGINES
from serinus.api.runtime import Engine
from serinus.api.spec import ModelDeploymentSpec
from serinus.objects.context import Context, Settings
from serinus.objects.read import Children, observe
from serinus.objects.render import Desired, render
from serinus.release.observed import Pin, Plan, RevisionPlan
from serinus.release.revisions import Revision
from serinus.runtimes.base import image_of
from serinus_runtime.config import from_environment


def context(**changes: Any) -> Context:
    base: dict[str, Any] = {
        "model": {"version": "v1", "uri": "http://store/v1/", "digest": "sha256:" + "a" * 64},
        "route": {"parentRefs": [{"name": "public", "namespace": "gw"}], "hostnames": ["x.example.com"]},
        "slo": {"p99": "50ms"},
    }
    return Context("ns", "fraud", "uid-1", ModelDeploymentSpec.model_validate({**base, **changes}))


def plan(ctx: Context, floor: int = 2, weight: int = 100) -> Plan:
    revision = Revision.target(ctx.name, ctx.spec)
    return Plan((RevisionPlan(revision, floor),), {revision.name: weight}, revision.name)


def rendered(ctx: Context, children: Children | None = None, **kwargs: Any) -> Desired:
    return render(ctx, plan(ctx, **kwargs), children or Children())


def one(desired: Desired, kind: str, name: str | None = None) -> dict[str, Any]:
    found = [obj for obj in desired.apply if obj["kind"] == kind and name in (None, obj["metadata"]["name"])]
    assert len(found) == 1
    return found[0]


def test_everything_has_one_owner_and_a_label() -> None:
    for obj in rendered(context()).apply:
        (owner,) = obj["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["uid"], owner["controller"]) == ("ModelDeployment", "uid-1", True)
        assert obj["metadata"]["labels"]["serving.serinus.dev/deployment"] == "fraud"
        assert "annotations" not in obj["metadata"], "annotations are noise in a GitOps diff"


def test_pods_pass_the_restricted_level() -> None:
    spec = one(rendered(context()), "Deployment")["spec"]["template"]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    for container in [*spec["initContainers"], *spec["containers"]]:
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["readOnlyRootFilesystem"] is True


def test_runtime_is_told_the_slo_and_what_it_serves() -> None:
    (container,) = one(rendered(context()), "Deployment")["spec"]["template"]["spec"]["containers"]
    env = {entry["name"]: entry["value"] for entry in container["env"]}
    assert env["SERINUS_SLO_LATENCY"] == "50ms"
    assert env["SERINUS_MODEL_DIGEST"] == "sha256:" + "a" * 64
    assert env["SERINUS_MODEL_VERSION"] == "v1"
    assert env["SERINUS_MAX_REQUEST_BYTES"] == str(4 * 2**20)


def test_prediction_log_is_told_only_where_it_is_wanted() -> None:
    def env(**runtime: Any) -> dict[str, str]:
        (container,) = one(rendered(context(runtime=runtime)), "Deployment")["spec"]["template"]["spec"]["containers"]
        return {entry["name"]: entry["value"] for entry in container["env"] if "PREDICTION_LOG" in entry["name"]}

    assert env() == {}
    assert env(predictionLog={"target": "Stdout", "payloads": "1%", "redact": ["amount", "card"]}) == {
        "SERINUS_PREDICTION_LOG": "stdout",
        "SERINUS_PREDICTION_LOG_PAYLOADS": "0.01",
        "SERINUS_PREDICTION_LOG_REDACT": "amount,card",
    }


@pytest.mark.parametrize(
    ("target", "url", "variable"),
    [("Http", "https://logs.example.com/p", "TOKEN_FILE"), ("Kafka", "kafka://b:9092/predictions", "OPTIONS_FILE")],
)
def test_prediction_log_goes_elsewhere_with_credentials(target: str, url: str, variable: str) -> None:
    log = {"target": target, "url": url, "sample": "10%", "credentials": {"secretName": "logs", "key": "k"}}
    spec = one(rendered(context(runtime={"predictionLog": log})), "Deployment")["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    env = {entry["name"]: entry["value"] for entry in container["env"]}
    assert env["SERINUS_PREDICTION_LOG"] == url
    assert env["SERINUS_PREDICTION_LOG_SAMPLE"] == "0.1"
    assert env[f"SERINUS_PREDICTION_LOG_{variable}"] == "/etc/serinus/secrets/logs/k"
    assert [volume["secret"] for volume in spec["volumes"] if "secret" in volume] == [{"secretName": "logs"}]
    assert "/etc/serinus/secrets/logs" in {mount["mountPath"] for mount in container["volumeMounts"]}
    assert from_environment(env).prediction_log == url


def test_drift_is_told_only_where_it_is_wanted() -> None:
    def env(**runtime: Any) -> dict[str, str]:
        (container,) = one(rendered(context(runtime=runtime)), "Deployment")["spec"]["template"]["spec"]["containers"]
        return {entry["name"]: entry["value"] for entry in container["env"] if "DRIFT" in entry["name"]}

    assert env() == {}
    told = env(drift={"enabled": False, "window": "2d", "sample": "25%"})
    config = from_environment(told)
    assert (config.drift, config.drift_window, config.drift_sample) == ("off", 172_800.0, 0.25)


@pytest.mark.parametrize(
    ("limits", "surge"),
    [({}, {"maxSurge": "25%", "maxUnavailable": 0}), ({"nvidia.com/gpu": "1"}, {"maxSurge": 0, "maxUnavailable": 1})],
)
def test_without_a_spare_gpu_room_is_made_first(limits: dict[str, str], surge: dict[str, Any]) -> None:
    desired = rendered(context(runtime={"resources": {"limits": limits}}))
    spec = one(desired, "Deployment")["spec"]
    assert spec["strategy"]["rollingUpdate"] == surge
    fetch, model = spec["template"]["spec"]["initContainers"][0], spec["template"]["spec"]["containers"][0]
    assert ("nvidia.com/gpu" in model["resources"].get("limits", {})) is bool(limits)
    assert "nvidia.com/gpu" not in fetch["resources"].get("limits", {})


def test_claims_are_mounted_read_only() -> None:
    model = {"version": "v1", "uri": "pvc://models/fraud/v1", "digest": "sha256:" + "a" * 64}
    spec = one(rendered(context(model=model)), "Deployment")["spec"]["template"]["spec"]
    claim = next(volume for volume in spec["volumes"] if volume["name"] == "claim")
    assert claim["persistentVolumeClaim"] == {"claimName": "models", "readOnly": True}
    assert {"name": "claim", "mountPath": "/mnt/pvc", "readOnly": True} in spec["initContainers"][0]["volumeMounts"]


def test_fixed_scale_owns_replicas_and_has_no_autoscaler() -> None:
    desired = rendered(context(scaling={"min": 3}), floor=3)
    assert one(desired, "Deployment")["spec"]["replicas"] == 3
    assert not any(obj["kind"] == "HorizontalPodAutoscaler" for obj in desired.apply)


def test_autoscaled_replicas_belong_to_the_autoscaler() -> None:
    desired = rendered(context(scaling={"min": 2, "max": 9}))
    deployment, hpa = one(desired, "Deployment"), one(desired, "HorizontalPodAutoscaler")
    assert "replicas" not in deployment["spec"]
    assert desired.scale == {deployment["metadata"]["name"]: 2}
    assert (hpa["spec"]["minReplicas"], hpa["spec"]["maxReplicas"]) == (2, 9)
    up, down = hpa["spec"]["behavior"]["scaleUp"], hpa["spec"]["behavior"]["scaleDown"]
    assert up["stabilizationWindowSeconds"] < down["stabilizationWindowSeconds"]


def test_turning_autoscaling_on_never_resets_replicas() -> None:
    ctx = context(scaling={"min": 2, "max": 9})
    name = f"fraud-{Revision.target('fraud', ctx.spec).name}"
    fields = {"manager": "serinus", "operation": "Apply", "fieldsV1": {"f:spec": {"f:replicas": {}}}}
    existing = {
        "kind": "Deployment",
        "metadata": {"name": name, "uid": "u", "managedFields": [fields]},
        "spec": {"replicas": 7},
    }
    assert one(rendered(ctx, Children([existing])), "Deployment")["spec"]["replicas"] == 7


def test_route_carries_the_weights_and_comes_first_once_its_services_exist() -> None:
    ctx = context()
    revision = Revision.target("fraud", ctx.spec).name
    weights = {revision: 0, "bcdfghjklm": 100}
    services = [{"kind": "Service", "metadata": {"name": f"fraud-{name}", "uid": name}, "spec": {}} for name in weights]
    both = Plan((RevisionPlan(Revision.target("fraud", ctx.spec), 2),), weights, None, frozenset({"bcdfghjklm"}))
    desired = render(ctx, both, Children(services))
    assert desired.apply[0]["kind"] == "HTTPRoute"
    backends = desired.apply[0]["spec"]["rules"][0]["backendRefs"]
    assert {ref["name"]: ref["weight"] for ref in backends} == {f"fraud-{revision}": 0, "fraud-bcdfghjklm": 100}
    assert render(ctx, both, Children()).apply[-1]["kind"] == "HTTPRoute"
    assert not desired.delete, "what is kept is not pruned"


def test_leftovers_are_deleted_autoscalers_first() -> None:
    ctx = context()
    old = [
        {"kind": kind, "metadata": {"name": "fraud-bcdfghjklm", "uid": kind}, "spec": {}}
        for kind in ("Service", "Deployment", "HorizontalPodAutoscaler", "ControllerRevision")
    ]
    desired = render(ctx, plan(ctx), Children(old), history=["bcdfghjklm"])
    assert [obj["kind"] for obj in desired.delete] == ["HorizontalPodAutoscaler", "Deployment", "Service"]


def test_pod_monitor_replaces_annotations() -> None:
    ctx = context()
    with_monitor = Context("ns", "fraud", "uid-1", ctx.spec, Settings(pod_monitors=True))
    desired = rendered(with_monitor)
    assert one(desired, "PodMonitor")
    assert "annotations" not in one(desired, "Deployment")["spec"]["template"]["metadata"]
    assert (
        one(rendered(ctx), "Deployment")["spec"]["template"]["metadata"]["annotations"]["prometheus.io/port"] == "8082"
    )


def test_grpc_goes_by_the_same_weights_in_the_same_object() -> None:
    ctx = context()
    desired = rendered(ctx, weight=100)
    http, grpc = one(desired, "HTTPRoute")["spec"]["rules"]
    assert grpc["matches"] == [{"path": {"type": "PathPrefix", "value": "/inference.GRPCInferenceService"}}]
    assert [(ref["name"], ref["weight"]) for ref in grpc["backendRefs"]] == [
        (ref["name"], ref["weight"]) for ref in http["backendRefs"]
    ]
    (port,) = [port for port in one(desired, "Service", "fraud")["spec"]["ports"] if port["name"] == "grpc"]
    assert {ref["port"] for ref in grpc["backendRefs"]} == {port["port"]}
    assert port["appProtocol"] == "kubernetes.io/h2c", "gateways speak HTTP/1.1 to pods unless told otherwise"
    container = one(desired, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    assert {"name": "grpc", "containerPort": 8081, "protocol": "TCP"} in container["ports"]
    assert {"name": "SERINUS_GRPC_PORT", "value": "8081"} in container["env"]


def test_a_path_prefix_leaves_grpc_to_the_service() -> None:
    ctx = context(route={"parentRefs": [{"name": "public"}], "path": "/fraud"})
    assert len(one(rendered(ctx), "HTTPRoute")["spec"]["rules"]) == 1


BESIDE = {
    "name": "vllm",
    "engine": {
        "image": "example.com/vllm:1",
        "args": ["--max-model-len=8192"],
        "env": [{"name": "HF_HUB_OFFLINE", "value": "1"}],
        "resources": {"limits": {"nvidia.com/gpu": "1"}},
    },
}


def pod(ctx: Context) -> dict[str, Any]:
    spec: dict[str, Any] = one(rendered(ctx), "Deployment")["spec"]["template"]["spec"]
    return spec


def test_an_engine_beside_is_a_sidecar_that_outlives_the_drain() -> None:
    spec = pod(context(runtime=BESIDE))
    fetch, engine = spec["initContainers"]
    assert fetch["name"] == "fetch-model", "the engine starts with a model that is verified"
    assert (engine["name"], engine["restartPolicy"]) == ("engine", "Always")
    assert engine["command"] == ["vllm", "serve"]
    assert "--host=127.0.0.1" in engine["args"], "nobody gets past the runtime"
    assert engine["args"][-1] == "--max-model-len=8192"
    assert engine["resources"]["limits"] == {"nvidia.com/gpu": "1"}
    assert {"name": "models", "mountPath": "/models", "readOnly": True} in engine["volumeMounts"]
    assert engine["securityContext"]["runAsNonRoot"] is True
    assert engine["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    (front,) = spec["containers"]
    told = {item["name"]: item["value"] for item in front["env"]}
    assert told["SERINUS_ENGINE"] == "proxy"
    assert told["SERINUS_PROXY_URL"] == "http://127.0.0.1:9000"
    assert told["SERINUS_PROXY_HEALTH"] == "/health"
    assert "nvidia.com/gpu" not in front["resources"].get("limits", {})


@pytest.mark.parametrize(
    ("jwks", "place", "volume"),
    [
        ({"url": "https://login.example/jwks"}, "https://login.example/jwks", None),
        ({"secret": {"secretName": "login"}}, "/etc/serinus/secrets/login/jwks.json",
         {"secret": {"secretName": "login"}}),
        ({"configMap": {"name": "login", "key": "set"}}, "/etc/serinus/configmaps/login/set",
         {"configMap": {"name": "login"}}),
    ],
)  # fmt: skip
def test_tokens_are_checked_by_the_runtime(jwks: dict[str, Any], place: str, volume: dict[str, Any] | None) -> None:
    auth = {"issuer": "https://login.example", "audience": ["fraud", "other"], "jwks": jwks, "algorithms": ["EdDSA"]}
    if volume is None:
        auth["refresh"] = "10m"
    spec = pod(context(runtime={"auth": auth}))
    (front,) = spec["containers"]
    told = {item["name"]: item["value"] for item in front["env"] if item["name"].startswith("SERINUS_JWT_")}
    assert told == {
        "SERINUS_JWT_JWKS": place, "SERINUS_JWT_ISSUER": "https://login.example", "SERINUS_JWT_AUDIENCE": "fraud,other",
        "SERINUS_JWT_ALGORITHMS": "EdDSA", **({"SERINUS_JWT_REFRESH": "10m"} if volume is None else {}),
    }  # fmt: skip
    config = from_environment({item["name"]: item["value"] for item in front["env"]})
    assert (config.jwt_jwks, config.jwt_audience, config.jwt_algorithms) == (place, ("fraud", "other"), ("EdDSA",))
    if volume is not None:
        (name,) = [each["name"] for each in spec["volumes"] if volume.items() <= each.items()]
        (mount,) = [each for each in front["volumeMounts"] if each["name"] == name]
        assert place.startswith(f"{mount['mountPath']}/")
        assert mount["readOnly"] is True


def test_without_auth_no_token_is_looked_at() -> None:
    (front,) = pod(context())["containers"]
    assert not any(item["name"].startswith("SERINUS_JWT_") for item in front["env"])


def beside(name: str, **engine: Any) -> tuple[dict[str, str], dict[str, Any], list[str]]:
    """The runtime's environment, the engine's container, and the paths of the route with their ports."""
    ctx = context(
        runtime={"name": name, "engine": {"image": "example.com/e:1", **engine}},
        route={"parentRefs": [{"name": "public"}]},
    )
    spec = pod(ctx)
    paths = [
        f"{rule['matches'][0]['path']['value']} {rule['backendRefs'][0]['port']}"
        for rule in one(rendered(ctx), "HTTPRoute")["spec"]["rules"]
    ]
    return {item["name"]: item["value"] for item in spec["containers"][0]["env"]}, spec["initContainers"][1], paths


def test_without_grpc_port_the_grpc_of_an_engine_beside_stays_shut() -> None:
    told, engine, paths = beside("triton")
    assert "SERINUS_PROXY_GRPC_URL" not in told
    assert engine["args"] == [
        "--model-repository=$(SERINUS_MODEL_DIR)", "--http-address=127.0.0.1", "--http-port=$(SERINUS_ENGINE_PORT)",
        "--allow-grpc=false", "--allow-metrics=false",
    ]  # fmt: skip
    assert "SERINUS_ENGINE_GRPC_PORT" not in {item["name"] for item in engine["env"]}
    assert paths[1] == "/inference.GRPCInferenceService 8081"


@pytest.mark.parametrize(
    ("name", "path", "args"),
    [
        ("triton", "/inference.GRPCInferenceService",
         ["--grpc-address=127.0.0.1", "--grpc-port=$(SERINUS_ENGINE_GRPC_PORT)"]),
        ("tfserving", "/tensorflow.serving.PredictionService", ["--port=$(SERINUS_ENGINE_GRPC_PORT)"]),
        ("rayserve", "/inference.GRPCInferenceService", []),
        ("proxy", "/inference.GRPCInferenceService", []),
    ],
)  # fmt: skip
def test_the_grpc_of_an_engine_beside_stands_behind_the_runtimes(name: str, path: str, args: list[str]) -> None:
    told, engine, paths = beside(name, grpcPort=9001, args=["--mine"])
    assert told["SERINUS_PROXY_GRPC_URL"] == "http://127.0.0.1:9001"
    assert told["SERINUS_GRPC_PORT"] == "8081"
    assert {"name": "SERINUS_ENGINE_GRPC_PORT", "value": "9001"} in engine["env"]
    assert engine["args"][-1 - len(args) :] == [*args, "--mine"]
    assert "--allow-grpc=false" not in engine["args"]
    assert paths[1] == f"{path} 8081"


def test_devices_of_an_engine_beside_make_room_before_a_surge() -> None:
    strategy = one(rendered(context(runtime=BESIDE)), "Deployment")["spec"]["strategy"]
    assert strategy["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}


@pytest.mark.parametrize("engine", ["torch", "torchserve"])
def test_pytorch_runs_in_a_flavour_of_the_image(engine: str) -> None:
    (front,) = pod(context(runtime={"name": engine}))["containers"]
    assert front["image"] == "serinus-runtime-torch:dev"
    assert {"name": "SERINUS_ENGINE", "value": engine} in front["env"]
    (front,) = pod(context(runtime={"name": engine, "image": "example.com/own:1"}))["containers"]
    assert front["image"] == "example.com/own:1"


@pytest.mark.parametrize(
    ("default", "flavoured"),
    [
        ("registry.example.com:5000/serinus-runtime:1.2", "registry.example.com:5000/serinus-runtime-torch:1.2"),
        ("registry.example.com:5000/serinus-runtime", "registry.example.com:5000/serinus-runtime-torch"),
        ("serinus-runtime@sha256:ab", "serinus-runtime@sha256:ab"),
    ],
)
def test_a_flavour_is_a_neighbour_of_the_default_image(default: str, flavoured: str) -> None:
    assert image_of(default, "torch") == flavoured
    assert image_of(default, "") == default


@pytest.mark.parametrize("engine", list(Engine))
def test_every_engine_has_a_template_that_can_be_started(engine: Engine) -> None:
    beside = engine in BESIDE_ENGINES
    runtime = {"name": engine.value} | ({"engine": {"image": "example.com/e:1"}} if beside else {})
    spec = pod(context(runtime=runtime))
    assert [container["name"] for container in spec["initContainers"]] == ["fetch-model", *["engine"] * beside]
    defined = {item["name"] for item in spec["containers"][0]["env"]}
    for container in spec["initContainers"][1:]:
        known = {item["name"] for item in container["env"]}
        for text in (*container.get("command", ()), *container["args"]):
            assert set(re.findall(r"\$\((\w+)\)", text)) <= known
    for item in spec["containers"][0]["env"]:
        assert set(re.findall(r"\$\((\w+)\)", item["value"])) <= defined


def test_the_runtime_is_told_only_what_is_asked_for() -> None:
    plain = {item["name"] for item in pod(context())["containers"][0]["env"]}
    asked = pod(
        context(
            runtime={
                "responseCache": {"size": "1Mi"},
                "apiKeys": {"secretName": "clients"},
                "env": [{"name": "SERINUS_INSTANCES", "value": "2"}],
                "secrets": ["tls", "clients"],
            }
        )
    )
    (container,) = asked["containers"]
    told = {item["name"]: item["value"] for item in container["env"]}
    assert set(told) - plain == {
        "SERINUS_RESPONSE_CACHE",
        "SERINUS_RESPONSE_CACHE_TTL",
        "SERINUS_API_KEYS_FILE",
        "SERINUS_INSTANCES",
    }
    assert told["SERINUS_RESPONSE_CACHE"] == str(1 << 20)
    assert told["SERINUS_API_KEYS_FILE"] == "/etc/serinus/secrets/clients/keys"
    mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert {"/etc/serinus/secrets/clients", "/etc/serinus/secrets/tls"} <= mounted
    fetched = {mount["mountPath"] for mount in asked["initContainers"][0]["volumeMounts"]}
    assert not any("secrets" in path for path in fetched), "who fetches needs no secrets of clients"
    assert {volume["secret"]["secretName"] for volume in asked["volumes"] if "secret" in volume} == {"clients", "tls"}


@pytest.mark.parametrize(
    ("written", "meant"), [("0", "0s"), ("90s", "1m30s"), ("1500ms", "1s500ms"), ("1w", "168h"), ("0.5h", "30m")]
)
def test_the_gateway_is_told_the_timeout_in_its_own_form(written: str, meant: str) -> None:
    ctx = context(route={"parentRefs": [{"name": "public"}], "timeout": written})
    rules = one(rendered(ctx), "HTTPRoute")["spec"]["rules"]
    assert [rule["timeouts"] for rule in rules] == [{"request": meant}] * 2
    assert "timeouts" not in one(rendered(context()), "HTTPRoute")["spec"]["rules"][0]


def test_pins_are_rules_of_the_same_route_with_the_same_paths() -> None:
    ctx = context()
    match = Match.model_validate({"headers": [{"name": "X-Group", "value": "beta"}]})
    plain = plan(ctx)
    pinned = dataclasses.replace(plain, pins=(Pin("bcdfghjklm", (match,)),))
    before = one(render(ctx, plain, Children()), "HTTPRoute")["spec"]["rules"]
    rules = one(render(ctx, pinned, Children()), "HTTPRoute")["spec"]["rules"]
    assert rules[:2] == before, "the weighted rules keep their places"
    headers = [{"type": "Exact", "name": "X-Group", "value": "beta"}]
    assert [rule["matches"] for rule in rules[2:]] == [
        [{"path": {"type": "PathPrefix", "value": path}, "headers": headers}]
        for path in ("/", "/inference.GRPCInferenceService")
    ]
    assert [[(ref["name"], ref["port"]) for ref in rule["backendRefs"]] for rule in rules[2:]] == [
        [("fraud-bcdfghjklm", 80)],
        [("fraud-bcdfghjklm", 8081)],
    ]


def test_weights_are_read_from_the_weighted_rule() -> None:
    ctx = context()
    match = Match.model_validate({"cookie": {"name": "beta"}})
    revision = Revision.target(ctx.name, ctx.spec).name
    split = dataclasses.replace(plan(ctx), weights={revision: 95, "bcdfghjklm": 5}, pins=(Pin("bcdfghjklm", (match,)),))
    route = one(render(ctx, split, Children()), "HTTPRoute")
    assert observe(ctx.name, Children([route])).route.weights == {revision: 95, "bcdfghjklm": 5}
    alone = dataclasses.replace(plan(ctx), pins=(Pin("bcdfghjklm", (match,)),))
    route = one(render(ctx, alone, Children()), "HTTPRoute")
    assert observe(ctx.name, Children([route])).route.weights == {revision: 100}


def test_a_preview_is_a_service_and_a_route_of_its_own() -> None:
    steps = [{"preview": {"hostnames": ["preview.example.com"]}}]
    ctx = context(release={"strategy": "BlueGreen", "steps": steps})
    made = render(ctx, dataclasses.replace(plan(ctx), preview="bcdfghjklm"), Children())
    service = one(made, "Service", "fraud-preview")
    assert service["spec"]["selector"]["serving.serinus.dev/revision"] == "bcdfghjklm"
    route, users = one(made, "HTTPRoute", "fraud-preview"), one(made, "HTTPRoute", "fraud")
    assert route["spec"]["hostnames"] == ["preview.example.com"]
    assert {ref["name"] for rule in route["spec"]["rules"] for ref in rule["backendRefs"]} == {"fraud-bcdfghjklm"}
    assert users["spec"]["hostnames"] == ["x.example.com"]
    gone = render(ctx, plan(ctx), Children(made.apply)).delete
    assert {(obj["kind"], obj["metadata"]["name"]) for obj in gone} == {
        ("Service", "fraud-preview"),
        ("HTTPRoute", "fraud-preview"),
    }
