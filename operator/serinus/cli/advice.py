"""Advice for reasons that come from steps, gates and evidence: likely cause, first action."""

from __future__ import annotations

from collections.abc import Mapping

STEPS_AND_GATES: Mapping[str, tuple[str, str]] = {
    "EvidencePartial": (
        "Prometheus does not scrape every ready pod: targets that are down, a scrape config that misses some, or one "
        "address for all pods",
        "compare the target list of Prometheus with `kubectl get pods -o wide`; the weight waits meanwhile",
    ),
    "EvidenceStale": (
        "no request of the candidate was counted lately: traffic has stopped, or the pods are no longer scraped",
        "see whether users still come, and the target list of Prometheus",
    ),
    "MetricMissing": (
        "a metric of release.analysis.metrics has no value: the query is wrong, lacks labels, or nothing was measured",
        "ask Prometheus the query; it must return one sample per revision, with the three labels in the message",
    ),
    "MetricOutOfRange": (
        "a metric of release.analysis.metrics was out of its limits too often in a row",
        "see status.release.metrics or `serinus report NAME` for the last measurements; plain thresholds are noisy",
    ),
    "MoreErrorsThanLive": (
        "the candidate fails more often than the live version over the same time",
        "read the reason in the pod's log or the prediction log; the SLO itself may still be kept",
    ),
    "SlowerThanLive": (
        "the candidate is slow more often than the live version over the same time",
        "compare serinus_stage_duration_seconds of both revisions; the SLO itself may still be kept",
    ),
    "Inconclusive": (
        "a step has held for want of evidence for longer than analysis.inconclusive.after",
        "see why in the message before; lower minRequests, or raise the first weight where traffic is thin",
    ),
    "SmokeTestFailed": (
        "the candidate answered requests of the smoke test wrongly, too slowly, or not at all",
        "read status.release.smokeTest: it has the answers; send the same request to a pod by `kubectl port-forward`; "
        "where another answer than the live version's is meant, raise tolerance or maxDisagreement",
    ),
    "OutsideWindow": (
        "the release waits for its maintenance window",
        "wait; or, where it cannot: `serinus promote NAME` for a release under way, which skips the steps that are "
        "left, and other release.windows for one that has not started",
    ),
    "Frozen": (
        "releases are frozen, for this ModelDeployment or for all",
        "ask whoever froze them; roll-backs go on meanwhile",
    ),
    "WebhookRefused": (
        "a webhook of the release said no, or could not be reached and its failurePolicy is Fail",
        "read its answer in the message, and the log of the service behind it; try its address from the operator's pod",
    ),
    "RouteConflict": (
        "an older ModelDeployment has the same host name and path at the same Gateway: gateways serve the older one",
        "give one of them another route.hostnames or route.path, or delete it",
    ),
    "FlagsUnresolved": (
        "a flag names a version that is not kept, or not ready",
        "compare route.flags with `serinus history NAME`",
    ),
    "NothingToCompare": (
        "the step needs a live version beside the candidate, or answers of both, and there are none",
        "wait for traffic; the first release of all has nothing to be compared with",
    ),
    "ExperimentLost": (
        "the experiment says that the candidate does worse on the business metric",
        "read status.release.experiment; mend the model, or run `serinus promote NAME` where you know better",
    ),
    "ExperimentUndecided": (
        "the experiment ended without a clear answer: the effect is smaller than it was planned for",
        "read status.release.experiment; then `serinus promote NAME` or `serinus abort NAME`",
    ),
}
