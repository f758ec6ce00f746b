"""The command lines of etcd, the API server, the controller manager and the scheduler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.certs import Authority
from cluster.gobuild import KUBERNETES

Command = list[str | Path]

# Only writes are logged: that is what tests count, and reads are most of the traffic.
AUDIT_POLICY = """apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: None
    verbs: [get, list, watch]
  - level: Metadata
"""


@dataclass(frozen=True)
class ControlPlane:
    """Where a control plane listens and keeps its files."""

    run: Path
    pki: Authority
    address: str
    port: int
    etcd: Path
    etcd_port: int
    service_network: str

    @property
    def server(self) -> str:
        """The API server's address."""
        return f"https://{self.address}:{self.port}"

    @property
    def audit_log(self) -> Path:
        """The file of the API server's audit log: one JSON object a line, writes only."""
        return self.run / "audit.log"

    def etcd_command(self) -> Command:
        """etcd on the loopback device. Nothing is synced to disk: the data does not outlive the run folder."""
        client, peer = f"http://127.0.0.1:{self.etcd_port}", f"http://127.0.0.1:{self.etcd_port + 1}"
        return [
            self.etcd,
            "--name=serinus",
            f"--data-dir={self.run / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=serinus={peer}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        ]

    def apiserver_command(self, extra: Sequence[str] = ()) -> Command:
        """The API server, writing its audit log."""
        (self.run / "audit-policy.yaml").write_text(AUDIT_POLICY)
        certificate, key = self.pki.certificate, self.pki.key
        return [
            KUBERNETES.binary("kube-apiserver"),
            f"--etcd-servers=http://127.0.0.1:{self.etcd_port}",
            f"--bind-address={self.address}",
            f"--advertise-address={self.address}",
            f"--secure-port={self.port}",
            f"--tls-cert-file={certificate('apiserver')}",
            f"--tls-private-key-file={key('apiserver')}",
            f"--client-ca-file={certificate('ca')}",
            f"--service-cluster-ip-range={self.service_network}",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-account-key-file={self.pki.folder / 'sa.pub'}",
            f"--service-account-signing-key-file={key('sa')}",
            "--authorization-mode=Node,RBAC",
            "--allow-privileged=true",
            f"--audit-policy-file={self.run / 'audit-policy.yaml'}",
            f"--audit-log-path={self.audit_log}",
            "--audit-log-maxsize=2000",
            "--shutdown-delay-duration=0s",
            "--profiling=false",
            *extra,
        ]

    def node_arguments(self) -> list[str]:
        """What the API server needs beyond that where there is a kubelet and API servers of add-ons."""
        certificate, key = self.pki.certificate, self.pki.key
        return [
            "--enable-admission-plugins=NodeRestriction",
            # The node's name does not resolve.
            "--kubelet-preferred-address-types=InternalIP",
            f"--kubelet-certificate-authority={certificate('ca')}",
            f"--kubelet-client-certificate={certificate('kubelet-client')}",
            f"--kubelet-client-key={key('kubelet-client')}",
            f"--requestheader-client-ca-file={certificate('front-proxy-ca')}",
            "--requestheader-allowed-names=front-proxy",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            f"--proxy-client-cert-file={certificate('front-proxy')}",
            f"--proxy-client-key-file={key('front-proxy')}",
            "--enable-aggregator-routing=true",
        ]

    def controller_manager_command(self, kubeconfig: Path) -> Command:
        """The controller manager, with an HPA that looks often enough for tests."""
        return [
            KUBERNETES.binary("kube-controller-manager"),
            f"--kubeconfig={kubeconfig}",
            f"--bind-address={self.address}",
            "--leader-elect=false",
            "--use-service-account-credentials=true",
            f"--root-ca-file={self.pki.certificate('ca')}",
            f"--service-account-private-key-file={self.pki.key('sa')}",
            f"--cluster-signing-cert-file={self.pki.certificate('ca')}",
            f"--cluster-signing-key-file={self.pki.key('ca')}",
            f"--flex-volume-plugin-dir={self.run / 'volume-plugins'}",
            "--horizontal-pod-autoscaler-sync-period=5s",
            "--horizontal-pod-autoscaler-cpu-initialization-period=10s",
            "--horizontal-pod-autoscaler-initial-readiness-delay=5s",
            "--horizontal-pod-autoscaler-downscale-stabilization=30s",
            "--profiling=false",
        ]

    def scheduler_command(self, kubeconfig: Path) -> Command:
        """The scheduler."""
        return [
            KUBERNETES.binary("kube-scheduler"),
            f"--kubeconfig={kubeconfig}",
            f"--bind-address={self.address}",
            "--leader-elect=false",
            "--profiling=false",
        ]
