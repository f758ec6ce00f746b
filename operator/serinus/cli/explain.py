"""`serinus explain`: symptom, likely cause, first action. Pure: from what the cluster shows to advice."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from serinus.api.spec import ModelDeploymentSpec
from serinus.api.status import ModelDeploymentStatus
from serinus.api.units import Duration, Percent
from serinus.cli.advice import STEPS_AND_GATES
from serinus.cli.picture import Picture
from serinus.cli.view import parse
from serinus.cli.warnings import ADVICE as WARNINGS
from serinus.cli.warnings import warned
from serinus.objects.read import observe
from serinus.release.readiness import REASON

_ADVICE = {
    "DigestMismatch": (
        "the files at model.uri are not those that model.digest pins: replaced, or the digest was copied wrong",
        "run `serinus-runtime digest DIR` on the files you mean, and compare; publish a new version beside, not over",
    ),
    "ModelLoadFailed": (
        "the model file is damaged, of another format, or needs operators that this runtime does not have",
        "run `serinus-runtime inspect DIR` and `serinus-runtime serve --model-dir DIR` where you exported it",
    ),
    "WarmupFailed": (
        "the model loads but fails on inputs of its own signature",
        "run `serinus-runtime bench DIR` where you exported it; look for fixed shapes and missing vocabularies",
    ),
    "InvalidConfig": ("a setting of the runtime is wrong", "read the message: it names the setting and what to write"),
    "FetchFailed": (
        "the model cannot be downloaded: address, network policy, or credentials of the store",
        "run `kubectl logs POD -c fetch-model`; try the address from a pod of the same namespace",
    ),
    "CrashLoop": ("the model server ends again and again", "run `kubectl logs POD -c model --previous`"),
    "OOMKilled": (
        "the model needs more memory than its limit",
        "raise runtime.resources.limits.memory, or lower batching.maxSize and responseCache.size",
    ),
    "Unschedulable": (
        "no node has the resources, the labels or the tolerated taints that the pods ask for",
        "read the scheduler's words in the message; add nodes, or change runtime.resources and nodeSelector",
    ),
    "FailedCreate": ("the API server refuses the pods", "raise the quota, or mend what the message names"),
    "ProgressDeadlineExceeded": (
        "pods were not ready in time: a slow download, a slow warm-up, or a probe that never passes",
        "run `kubectl describe pod`; raise release.progressDeadline where the model is just large",
    ),
    "CandidateUnavailable": (
        "all pods of the candidate lost readiness while it had traffic",
        "run `kubectl logs POD -c model --previous`, and look for OOM kills and evictions",
    ),
    REASON: (
        "pods of a promoted version run on and are not ready any more: a worker that hangs, a dependency that is away, "
        "or a readiness probe that fails",
        "run `kubectl get events --field-selector reason=Unhealthy` for what the probe got, and read the pods' log; "
        "while its predecessor is warm, the version is rolled back after release.progressDeadline, or 30 s without a "
        "ready pod",
    ),
    "ErrorRateTooHigh": (
        "the candidate answers too many requests with 5xx or 429",
        "read the prediction log or the pod's log for the reason; compare its inputs with what it was trained on",
    ),
    "LatencyTooHigh": (
        "too many of the candidate's answers take longer than slo.p99",
        "compare serinus_stage_duration_seconds of both revisions: queue (too few pods), infer (a slower model), "
        "decode and encode (larger inputs)",
    ),
    "Disagreement": (
        "the candidate's answers differ from the live version's on more requests than shadow.maxDisagreement allows",
        "read the worst 20 in the joiner's /report while the shadow lasts (docs/shadow.md); where the difference is "
        "meant, raise maxDisagreement",
    ),
    "ScoresShifted": (
        "the candidate's scores are distributed otherwise than the live version's on the same requests",
        "compare calibration and thresholds of both versions; where the shift is meant, raise shadow.maxPsi or maxKs",
    ),
    "InputsDiffer": (
        "both versions read the same requests and found other values in a column: swapped or renamed columns",
        "compare `features` in both model.json, and look at the columns in the joiner's /report",
    ),
    "ErrorsInShadow": (
        "the candidate failed on mirrored requests that the live version answered",
        "read the pod's log; 429 means that it has too few pods for the mirrored share",
    ),
    "SlowerInShadow": (
        "the candidate's p95 in the server is above shadow.maxLatencyRatio times the live version's",
        "compare serinus_stage_duration_seconds of both revisions; few requests make smaller batches",
    ),
    "MirrorRefused": (
        "the gateway does not know RequestMirror, or not with a percentage",
        "read the route's conditions; use a gateway that supports it, or remove the shadow",
    ),
    "NoPairs": (
        "no request was seen by both versions: no traffic, no joiner, or pods that it cannot read",
        "run `kubectl get pods -l serving.serinus.dev/shadow` and read the joiner's log; network policies must let it "
        "reach port 8082 of the pods",
    ),
    "EvidenceMissing": (
        "Prometheus does not answer, or has no data of these pods",
        "see serinus_operator_prometheus_up and the target list of Prometheus; the weights wait meanwhile",
    ),
    "NoRequests": (
        "no request reaches the candidate",
        "wait for traffic; see whether users come by the route's host name (`kubectl describe httproute`)",
    ),
    "TooFewRequests": (
        "the candidate has not answered enough requests to be judged",
        "wait; or lower minRequests, or raise the first weight where traffic is thin",
    ),
    "WaitingForGateway": (
        "the gateway has not accepted the route",
        "run `kubectl describe httproute`: no such Gateway, or a listener that does not allow this namespace",
    ),
    "RouteNotAccepted": (
        "the gateway has not accepted the route",
        "run `kubectl describe httproute`: no such Gateway, or a listener that does not allow this namespace",
    ),
    "WaitingForPods": ("pods are still starting", "run `kubectl get pods`; large models take minutes to download"),
    "MinimumReplicasUnavailable": (
        "the live revision has fewer pods ready than scaling.min",
        "run `kubectl get pods` and `kubectl describe pod`: evictions, full nodes, failing probes",
    ),
    "Paused": ("somebody paused the release", "run `serinus resume NAME`"),
    "WaitingForApproval": ("the step waits for a person", "run `serinus approve NAME`, or `serinus abort NAME`"),
    "Aborted": (
        "somebody aborted the release",
        "mend what was wrong and apply again, or run `serinus retry NAME`",
    ),
    "RolledBackByHand": (
        "somebody rolled back: the spec asks for a version that does not serve",
        "put the version that serves into the spec, or run `serinus retry NAME`",
    ),
    "InvalidSpec": ("the spec has something that this operator does not understand", "read the message; apply again"),
    "ApplyFailed": ("the API server refused an object of the release", "read the message: RBAC, a quota, or a webhook"),
}


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be."""

    symptom: str
    cause: str
    action: str

    def as_dict(self) -> dict[str, str]:
        """For JSON and YAML."""
        return asdict(self)


def findings(picture: Picture) -> list[Finding]:
    """What is wrong, or waits, the most pressing first; empty where all is well."""
    spec, status = parse(picture)
    found: list[Finding] = []
    told: set[str] = set()

    def add(reason: str, symptom: str) -> None:
        if reason in told:
            return
        told.add(reason)
        known = {**WARNINGS, **STEPS_AND_GATES, **_ADVICE}
        cause, action = known.get(reason, ("see the message", "run `kubectl describe mdep` for its events"))
        found.append(Finding(f"{reason}: {symptom}", cause, action.replace("NAME", picture.name)))

    for condition in status.conditions:
        if condition.type == "Ready" and condition.status != "True":
            add(condition.reason, condition.message)
    for condition in status.conditions:
        if condition.type in ("Stalled", "RouteConflict"):
            add(condition.reason, condition.message)
    release = status.release
    if release is not None and release.reason and release.reason != "Holding":
        add(release.reason, release.message or "")
    watch = status.watch
    if watch is not None and watch.unavailable_since is not None and status.live is not None:
        since = f"since {watch.unavailable_since:%Y-%m-%d %H:%M:%S %Z}"
        add(REASON, f"the live version {status.live.version} has had too few ready pods {since}")
    observed = observe(picture.name, picture.children)
    for role, ref in (("live", status.live), ("candidate", status.candidate), ("previous", status.previous)):
        if ref is not None and (failure := observed.state(ref.revision).failure) is not None:
            add(failure.reason, f"{role} version {ref.version}: {failure.message}")
    for reason, line in warned(picture):
        add(reason, line)
    found += _slo(spec, status)
    found += _never_reconciled(picture, status)
    return found


def _slo(spec: ModelDeploymentSpec, status: ModelDeploymentStatus) -> list[Finding]:
    found = []
    seen = status.metrics
    if seen is not None and seen.p99 is not None and Duration(seen.p99).seconds > spec.slo.p99.seconds:
        found.append(
            Finding(
                f"live p99 is {seen.p99}, the SLO says {spec.slo.p99}",
                "too few pods, a heavier input than usual, or a node that is short of CPU",
                "look at serinus_queue_depth and CPU throttling; raise scaling.min or max, or runtime.resources",
            )
        )
    if seen is not None and seen.error_rate is not None:
        rate = Percent(seen.error_rate).fraction
        if rate > spec.slo.error_rate.fraction:
            found.append(
                Finding(
                    f"live error rate is {seen.error_rate}, the SLO says {spec.slo.error_rate}",
                    "overload (429), the engine failing (500), or a dependency of the model",
                    "look at serinus_requests_total by code; `serinus rollback NAME` if it came with a version",
                )
            )
    return found


def _never_reconciled(picture: Picture, status: ModelDeploymentStatus) -> list[Finding]:
    generation = picture.owner["metadata"].get("generation", 0)
    if status.observed_generation >= generation:
        return []
    return [
        Finding(
            f"the operator has seen generation {status.observed_generation} of {generation}",
            "the operator does not run, does not lead, or does not watch this namespace",
            "run `kubectl get pods,lease` in the operator's namespace, and read its log",
        )
    ]
