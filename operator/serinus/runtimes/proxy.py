"""Any engine with an HTTP interface: FastAPI, Flask, a server of one's own. Its image says how it starts."""

from serinus.runtimes.base import Beside, RuntimeTemplate

TEMPLATE = RuntimeTemplate(
    engine="proxy",
    beside=Beside(),
)
