"""The fixed addresses and names of the node."""

from __future__ import annotations

NODE_NAME = "serinus-node"
# A bridge device carries the address: the kernels of some test machines have no dummy devices.
NODE_DEVICE = "serinus0"
NODE_ADDRESS = "10.99.0.1"
POD_NETWORK = "10.98.0.0/22"
SERVICE_NETWORK = "10.96.0.0/16"
KUBERNETES_ADDRESS = "10.96.0.1"
DNS_ADDRESS = "10.96.0.10"
API_SERVER = f"https://{NODE_ADDRESS}:6443"
ETCD_PORT = 23790
PROMETHEUS_URL = f"http://{NODE_ADDRESS}:9090"
CGROUP = "serinus"
CNI_NETWORK = "serinus"
UTILITY_IMAGE = "serinus-busybox:dev"
GATEWAY = ("gateway-system", "public")
