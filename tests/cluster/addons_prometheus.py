"""Prometheus on the host, scraping the pods that ask for it by annotation."""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from cluster import packages
from cluster.certs import Authority
from cluster.controlplane import Command
from cluster.paths import REPOSITORY
from cluster.settings import API_SERVER

SCRAPE_INTERVAL = "2s"
DISCOVERY_ENVIRONMENT = {"PYTHONPATH": str(REPOSITORY / "tests"), "PYTHONDONTWRITEBYTECODE": "1"}


def _targets(run: Path) -> Path:
    return run / "targets.json"


def discovery_command(run: Path, pki: Authority) -> Command:
    """What keeps the file of targets."""
    user = "user-prometheus"
    identity = [pki.certificate("ca"), pki.certificate(user), pki.key(user)]
    return [sys.executable, "-m", "cluster.discovery", API_SERVER, *identity, _targets(run)]


def prometheus_command(run: Path, url: str) -> Command:
    """Write the configuration; returns the command line."""
    config = {
        "global": {"scrape_interval": SCRAPE_INTERVAL, "scrape_timeout": SCRAPE_INTERVAL},
        "scrape_configs": [{"job_name": "pods", "file_sd_configs": [{"files": [str(_targets(run))]}]}],
    }
    (run / "prometheus.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return [
        packages.program("prometheus"),
        f"--config.file={run / 'prometheus.yaml'}",
        f"--storage.tsdb.path={run / 'prometheus'}",
        "--storage.tsdb.retention.time=6h",
        "--web.enable-lifecycle",
        f"--web.listen-address={url.removeprefix('http://')}",
    ]
