"""The kubelet and kube-proxy: their configuration files and command lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from cluster.certs import Authority
from cluster.controlplane import Command
from cluster.gobuild import KUBERNETES
from cluster.settings import CGROUP, DNS_ADDRESS, NODE_ADDRESS, NODE_NAME, POD_NETWORK


def pod_logs(run: Path) -> Path:
    """Where the containers' output is kept."""
    return run / "pod-logs"


def kubelet_config(run: Path, pki: Authority, socket: Path) -> dict[str, Any]:
    """The kubelet's configuration."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE_ADDRESS,
        "healthzBindAddress": NODE_ADDRESS,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(pki.certificate("ca"))},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(pki.certificate("kubelet")),
        "tlsPrivateKeyFile": str(pki.key("kubelet")),
        "containerRuntimeEndpoint": f"unix://{socket}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{CGROUP}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "clusterDNS": [DNS_ADDRESS],
        "clusterDomain": "cluster.local",
        "resolvConf": "/etc/resolv.conf",
        "podLogsDir": str(pod_logs(run)),
        "staticPodPath": "",
        "volumePluginDir": str(run / "volume-plugins"),
        "maxPods": 250,
        "oomScoreAdj": 0,
        # A laptop's or a build machine's disk is often fuller than a server's may be.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "0%", "imagefs.available": "0%"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "serializeImagePulls": False,
        "nodeStatusUpdateFrequency": "4s",
        "registerNode": True,
    }


def kubelet_command(run: Path, pki: Authority, socket: Path, kubeconfig: Path) -> Command:
    """Write the kubelet's configuration; returns its command line."""
    (run / "volume-plugins").mkdir(exist_ok=True)
    (run / "kubelet.yaml").write_text(yaml.safe_dump(kubelet_config(run, pki, socket)))
    return [
        KUBERNETES.binary("kubelet"),
        f"--config={run / 'kubelet.yaml'}",
        f"--kubeconfig={kubeconfig}",
        f"--root-dir={run / 'kubelet'}",
        f"--cert-dir={run / 'kubelet' / 'pki'}",
        f"--hostname-override={NODE_NAME}",
        f"--node-ip={NODE_ADDRESS}",
    ]


def proxy_command(run: Path, kubeconfig: Path) -> Command:
    """Write kube-proxy's configuration; returns its command line."""
    config = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        "mode": "iptables",
        "clusterCIDR": POD_NETWORK,
        "hostnameOverride": NODE_NAME,
        "bindAddress": NODE_ADDRESS,
        "healthzBindAddress": f"{NODE_ADDRESS}:10256",
        "metricsBindAddress": f"{NODE_ADDRESS}:10249",
        # The number of tracked connections is the machine's business.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpCloseWaitTimeout": "0s", "tcpEstablishedTimeout": "0s"},
        "iptables": {"minSyncPeriod": "100ms", "syncPeriod": "30s"},
    }
    (run / "kube-proxy.yaml").write_text(yaml.safe_dump(config))
    return [KUBERNETES.binary("kube-proxy"), f"--config={run / 'kube-proxy.yaml'}"]
