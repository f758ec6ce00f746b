"""PyTorch in a worker process of the bundled image's torch flavour: TorchScript, exported programs.

It takes some 300 MB of memory beside the model. Handlers of archives run with SERINUS_ALLOW_PYTHON=true in runtime.env.
"""

from serinus.runtimes.base import RuntimeTemplate

TEMPLATE = RuntimeTemplate(engine="torch", flavour="torch", env={"SERINUS_ENGINE": "torch"})
