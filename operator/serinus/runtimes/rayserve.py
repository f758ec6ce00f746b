"""Ray Serve, one local node; its configuration file in the model directory names the application and the port."""

from serinus.runtimes.base import Beside, RuntimeTemplate

TEMPLATE = RuntimeTemplate(
    engine="rayserve",
    beside=Beside(
        command=("serve", "run"),
        args=("$(SERINUS_MODEL_DIR)/serve.yaml",),
        health_path="/-/healthz",
        env={"RAY_USAGE_STATS_ENABLED": "0"},
    ),
)
