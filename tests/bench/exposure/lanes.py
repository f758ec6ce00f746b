"""A lane: one namespace, one controller's object in it, its users; trials run in it one after the other."""

from __future__ import annotations

import json
import os
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import yaml

import fraud.store as store
from bench.exposure import flagger
from bench.exposure.eyes import PERIOD, Eyes
from bench.exposure.flagger import NAME
from bench.exposure.measure import Figures, Seen, measured
from bench.exposure.trials import ERRORS, GOOD, LATENCY, LIVE, SHORT_STEPS, Contender, Trial
from cluster import ClusterInfo
from cluster.commands import output
from fraud.train import Built
from serinus.api.spec import ModelDeploymentSpec
from support.releases import Load

STORE = "exposure-store"
BEFORE, AFTER = 6.0, 4.0
"""Seconds of load before a version is applied and after its release has ended."""
Object = dict[str, Any]


class TrialError(Exception):
    """A lane could not be brought to where a trial starts."""


class Lane(ABC):
    """What both kinds have in common."""

    def __init__(
        self, cluster: ClusterInfo, eyes: Eyes, models: dict[str, Built], who: Contender, number: int, rate: float
    ) -> None:
        self.cluster, self.eyes, self.models, self.who, self.rate = cluster, eyes, models, who, rate
        self.namespace = f"exposure-{''.join(c for c in who.name.lower() if c.isalpha())[:16]}-{number}"
        self.host = f"{self.namespace}.example.com"
        self._served = 0
        self.deadline = float("inf")
        """Monotonic time after which a trial is broken off and forgotten."""

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        command: list[str | Path] = [
            self.cluster.kubectl,
            "--kubeconfig",
            self.cluster.kubeconfig,
            "-n",
            self.namespace,
        ]
        return output([*command, *arguments], stdin=stdin)

    def apply(self, *documents: Object) -> None:
        self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(documents))

    def open(self) -> None:
        """Namespace and live version are there, and users are answered."""
        # A run that was killed leaves its namespaces.
        self.kubectl("delete", "namespace", self.namespace, "--ignore-not-found")
        self.kubectl("create", "namespace", self.namespace)
        self.begin()

    def close(self) -> None:
        self.kubectl("delete", "namespace", self.namespace, "--wait=false", "--ignore-not-found")

    def spec(self, version: str, name: str, **release: Any) -> ModelDeploymentSpec:
        """A version's specification: the demo's, with the limits of this comparison. `name` is told to users."""
        gateway_namespace, gateway = self.cluster.gateway
        # Templates exist for the demo's versions only; all differ in the model.
        built = self.models["v2" if version == GOOD else version]
        document = yaml.safe_load(store.model_deployment(self.models["v2"], gateway, gateway_namespace))["spec"]
        document["model"] = {
            "version": name,
            "uri": f"http://{store.NAME}.{STORE}.svc/fraud/{built.version}/",
            "digest": built.digest,
        }
        document["route"]["hostnames"] = [self.host]
        document["scaling"] = {"min": flagger.REPLICAS}
        # Both sides' pods, so that a small node has room for all lanes.
        document["runtime"]["resources"]["requests"]["cpu"] = "25m"
        document["runtime"]["queue"] = {"maxLength": 512, "timeout": "10s"}
        document["slo"] = {"p99": LATENCY, "errorRate": ERRORS}
        document["release"] = release
        return ModelDeploymentSpec.model_validate(document)

    def run(self, trial: Trial, folder: Path) -> Figures:
        """One release under load."""
        self._served += 1
        name = f"{trial.version}-{self._served}"
        log = folder / f"{trial.key.replace('/', '_').replace(' ', '-').replace(',', '')}.csv"
        load = Load(self.cluster, self.host, log, self.rate, trial.seconds + 120, 10.0, seed=100 + trial.number)
        load.start()
        try:
            time.sleep(BEFORE)
            began = time.time()
            self.release(trial, name)
            outcome, reason = self.wait_end(began, trial.seconds)
            ended = time.time()
            time.sleep(AFTER)
        finally:
            records = load.stop()
        figures = measured(
            trial.key,
            self.who.name,
            trial.version,
            outcome,
            reason,
            serves=name,
            records=records,
            weights=self.candidate_weights(),
            began=began,
            ended=ended,
            limit_ms=float(LATENCY.removesuffix("ms")),
            load=os.getloadavg()[0],
        )
        self.reset(outcome)
        return figures

    def pause(self) -> None:
        """Between two looks. Raises TrialError when there is no time left."""
        if time.monotonic() > self.deadline:
            raise TrialError(f"{self.namespace}: the time is used up; the trial under way is not counted")
        time.sleep(PERIOD)

    def wait_for(self, what: str, seconds: float, check: Any) -> None:
        until = time.monotonic() + seconds
        while not check():
            if time.monotonic() > until:
                raise TrialError(f"{self.namespace}: {what} not within {seconds:.0f} s")
            self.pause()

    @abstractmethod
    def begin(self) -> None: ...

    @abstractmethod
    def release(self, trial: Trial, name: str) -> None: ...

    @abstractmethod
    def wait_end(self, began: float, seconds: float) -> tuple[str, str]: ...

    @abstractmethod
    def candidate_weights(self) -> list[Seen]: ...

    @abstractmethod
    def reset(self, outcome: str) -> None: ...


class SerinusLane(Lane):
    """A ModelDeployment."""

    def _apply(self, spec: ModelDeploymentSpec) -> None:
        body = spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        meta = {"name": NAME, "namespace": self.namespace}
        self.apply(
            {"apiVersion": "serving.serinus.dev/v1alpha1", "kind": "ModelDeployment", "metadata": meta, "spec": body}
        )

    def _status(self) -> Object:
        found: Object = self.eyes.latest("mdep", self.namespace).get("status", {})
        return found

    def begin(self) -> None:
        self._good = self.spec(LIVE, LIVE, **SHORT_STEPS)
        self._apply(self._good)
        self.wait_for("live", 180, lambda: self._status().get("phase") == "Live")

    def release(self, trial: Trial, name: str) -> None:
        steps = {} if trial.bad else SHORT_STEPS
        self._next = self.spec(trial.version, name, **steps)
        self._last = self._status().get("lastRelease")
        self._apply(self._next)

    def wait_end(self, began: float, seconds: float) -> tuple[str, str]:
        while time.time() < began + seconds:
            status = self._status()
            last = status.get("lastRelease")
            if last != self._last and last and "release" not in status:
                self._revision = last["revision"]
                if last["reason"] == "Unschedulable":
                    raise TrialError(f"{self.namespace}: the node has no room for so many lanes: write fewer --lanes")
                outcome = "Promoted" if last["outcome"] == "Promoted" else "RolledBack"
                return outcome, last["reason"]
            self.pause()
        self._revision = (self._status().get("release") or {}).get("revision", "")
        return "Unfinished", (self._status().get("release") or {}).get("reason", "")

    def candidate_weights(self) -> list[Seen]:
        return self.eyes.weights(self.namespace, f"{NAME}-{self._revision}")

    def reset(self, outcome: str) -> None:
        if outcome == "Promoted":
            self._good = self._next
        if outcome == "Unfinished":
            self._apply(self._good)
        self.wait_for("settled", 120, lambda: "release" not in self._status())


class FlaggerLane(Lane):
    """A Deployment and a Canary."""

    def _phase(self) -> str:
        status = self.eyes.latest("canary", self.namespace).get("status", {})
        return str(status.get("phase", ""))

    def begin(self) -> None:
        self.apply(flagger.deployment(self.namespace, self.spec(LIVE, LIVE)))
        documents = flagger.canary(
            self.namespace, self.host, self.cluster.gateway, self.cluster.prometheus_local_url, self.who
        )
        # Set up in a hurry; the interval of the setting counts from the first trial on.
        interval = documents[-1]["spec"]["analysis"]["interval"]
        documents[-1]["spec"]["analysis"]["interval"] = "10s"
        self.apply(*documents)
        self.wait_for("initialized", 240, lambda: self._phase() in ("Initialized", "Succeeded"))
        patch = json.dumps({"spec": {"analysis": {"interval": interval}}})
        self.kubectl("patch", "canary", NAME, "--type=merge", "-p", patch)

    def release(self, trial: Trial, name: str) -> None:
        template = flagger.deployment(self.namespace, self.spec(trial.version, name))["spec"]["template"]
        self._before = self._phase()
        self.kubectl("patch", "deployment", NAME, "--type=merge", "-p", json.dumps({"spec": {"template": template}}))

    def wait_end(self, began: float, seconds: float) -> tuple[str, str]:
        started = False
        while time.time() < began + seconds:
            phase = self._phase()
            started = started or phase not in (self._before, "Initialized", "Succeeded", "Failed")
            if started and phase in ("Failed", "Succeeded"):
                return ("RolledBack" if phase == "Failed" else "Promoted"), self._words(began)
            self.pause()
        return "Unfinished", self._phase()

    def _words(self, began: float) -> str:
        """The last warnings of this trial: they say why."""
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began))
        events = json.loads(self.kubectl("get", "events", "-o", "json"))["items"]
        told = [each for each in events if each["involvedObject"]["kind"] == "Canary" and each["type"] == "Warning"]
        told = [each for each in told if (each.get("lastTimestamp") or "") >= since]
        told.sort(key=lambda each: each.get("lastTimestamp") or each["metadata"]["creationTimestamp"])
        return "; ".join(dict.fromkeys(each["message"] for each in told[-3:]))

    def candidate_weights(self) -> list[Seen]:
        return self.eyes.weights(self.namespace, f"{NAME}-canary")

    def reset(self, outcome: str) -> None:
        if outcome == "Unfinished":
            raise TrialError(f"{self.namespace}: its release did not end: the lane is given up")
        if outcome == "RolledBack":
            # Its queries look back for a minute, at pods of any canary: what was just rolled back must be out of sight.
            time.sleep(flagger.LOOKS_BACK)
