"""The ModelDeployment resource: pydantic models of spec and status, the one source of the CRD."""

GROUP = "serving.serinus.dev"
VERSION = "v1alpha1"
KIND = "ModelDeployment"
PLURAL = "modeldeployments"
API_VERSION = f"{GROUP}/{VERSION}"
