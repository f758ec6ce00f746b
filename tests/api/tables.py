"""The tables of good and bad specs, and how `kubectl` is asked about them."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cluster.wait import until
from serinus.api import API_VERSION, KIND

HERE = Path(__file__).parent / "specs"
ROOT = Path(__file__).parents[2]
Object = dict[str, Any]
NOT_ALL_CHECKED = "some validation rules were not checked"


@dataclass(frozen=True)
class Bad:
    """A spec that is refused."""

    name: str
    spec: Object
    says: tuple[str, ...]


def merge(base: Any, patch: Any) -> Any:
    """JSON merge patch (RFC 7396)."""
    if not isinstance(patch, Mapping):
        return patch
    result = dict(base) if isinstance(base, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


def load(name: str) -> Any:
    """A file of this folder."""
    return yaml.safe_load((HERE / name).read_text())


def bad_specs() -> list[Bad]:
    """The bad table."""
    base = load("base.yaml")
    return [Bad(row["case"], merge(base, row["spec"]), tuple(row["says"])) for row in load("bad.yaml")]


def good_specs() -> dict[str, Object]:
    """The good table, by name."""
    every_field = yaml.safe_load((ROOT / "docs/reference/every-field.yaml").read_text())
    return {"base": load("base.yaml"), "every-field": every_field["spec"]} | {
        row["case"]: row["spec"] for row in load("good.yaml")
    }


def model_deployment(name: str, spec: Object, namespace: str = "default") -> Object:
    """A ModelDeployment around a spec."""
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name, "namespace": namespace}, "spec": spec}


class Kubectl:
    """`kubectl` against one API server, as a user runs it."""

    def __init__(self, program: Path, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        self._command = [str(program), "--kubeconfig", str(kubeconfig)]

    def run(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Runs it; the exit code is the caller's to judge."""
        return subprocess.run(
            [*self._command, *arguments], input=stdin, capture_output=True, text=True, timeout=120, check=False
        )

    def establish(self, path: Path) -> None:
        """Stores the CRDs of a file or folder and waits until they are served."""
        applied = self.run("apply", "--server-side", "--force-conflicts", "-f", str(path))
        assert applied.returncode == 0, applied.stderr
        # The server answers before the CRD has any condition, and then `kubectl wait` fails at once.
        wait = ("wait", "--for=condition=Established", "--timeout=5s", "-f", str(path))
        until(f"the CRDs of {path} to be served", lambda: self.run(*wait).returncode == 0, timeout=120)

    def apply(self, obj: Object, *options: str) -> subprocess.CompletedProcess[str]:
        """`kubectl apply -f -`."""
        return self.run("apply", "-f", "-", *options, stdin=json.dumps(obj))


def complaints(stderr: str) -> list[str]:
    """What kubectl complains about, one by one, without the remark that the rest was not checked."""
    text = re.sub(r'^The ModelDeployment "[^"]+" is invalid:', "", stderr.strip())
    return [part.strip() for part in re.split(r"\n\* ", text) if part.strip() and NOT_ALL_CHECKED not in part]
