"""Writes the models of these tests into a directory; runs in the interpreter that has torch."""

import json
import sys
import zipfile
from pathlib import Path

import torch

X = {"name": "x", "datatype": "FP32", "shape": [-1, 3]}
Y = {"name": "y", "datatype": "FP32", "shape": [-1, 1]}


class Sum(torch.nn.Module):
    def forward(self, x):
        return x.sum(dim=1, keepdim=True)


class Two(torch.nn.Module):
    """Two inputs, and two outputs by name; `label` is declared with a wrong datatype by `wrong_type`."""

    def forward(self, x, ids):
        total = x.sum(dim=1, keepdim=True) + ids.float()
        return {"label": (total > 1).to(torch.int64), "score": total}


class Whims(torch.nn.Module):
    """The sum; but sleeps, or ends the process, when the first number asks for it."""

    def forward(self, x):
        if bool((x[:, 0] == 99.0).any()):
            # Long for one core: what a stuck batch looks like.
            big = torch.ones(3000, 3000)
            for _ in range(100000):
                big = torch.mm(big, big) * 0.0001
            return big[:1, :1]
        if bool((x[:, 0] == 66.0).any()):
            raise RuntimeError("sixty-six is not allowed")
        return x.sum(dim=1, keepdim=True)


HANDLER = '''
import os
import torch


class Scorer:
    """As in TorchServe's documentation of custom services: no base class."""

    def __init__(self):
        self.seen = []

    def initialize(self, context):
        properties = context.system_properties
        assert context.manifest["model"]["modelName"] == "scorer"
        self.model = torch.jit.load(os.path.join(properties["model_dir"], "weights.pt"))

    def handle(self, data, context):
        answers = []
        for index, request in enumerate(data):
            rows = request["body"]["instances"]
            context.metrics.add_counter("rows", len(rows))
            if any(row[0] == 77.0 for row in rows):
                os._exit(3)
            with torch.inference_mode():
                answers.append({"predictions": self.model(torch.tensor(rows)).tolist()})
        return answers
'''

ROWS_HANDLER = '''
def handle(data, context):
    """A module-level function; each request is one row, and the answer tells how many came together."""
    if data is None:
        return None
    return [{"total": sum(each["body"]), "together": len(data)} for each in data]
'''

BASE_HANDLER = """
from ts.torch_handler.base_handler import BaseHandler
import torch


class Based(BaseHandler):
    def preprocess(self, data):
        return torch.tensor([each.get("body") for each in data])

    def postprocess(self, output):
        return output.tolist()
"""

ECHO_HANDLER = """
def handle(data, context):
    return None if data is None else [bytes(each["body"]) for each in data]
"""

PICKY_HANDLER = """
def handle(data, context):
    if data is None:
        return None
    for each in data:
        if not any(each["body"]):
            raise ValueError("no zeros")
    return [[sum(each["body"])] for each in data]
"""

HOARDER_HANDLER = """
held = []


def handle(data, context):
    if data is None:
        return None
    rows = data[0]["body"]["instances"]
    if any(row[0] == 88.0 for row in rows):
        held.append(b"x" * (256 << 20))
    return [{"predictions": [[sum(row)] for row in rows]}]
"""


def directory(root, name, about=None):
    made = root / name
    made.mkdir(parents=True)
    if about is not None:
        (made / "model.json").write_text(json.dumps(about))
    return made


def mar(path, handler, files, name="scorer"):
    manifest = {
        "createdOn": "01/01/2026 00:00:00",
        "runtime": "python",
        "model": {"modelName": name, "handler": "handler.py", "modelVersion": "1.0", **files.pop("manifest", {})},
        "archiverVersion": "0.12.0",
    }
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        archive.writestr("handler.py", handler)
        for file, content in files.items():
            archive.writestr(file, content)


def main(root):
    root.mkdir(parents=True)
    one = {"signature": {"inputs": [X], "outputs": [Y]}}
    torch.jit.script(Sum()).save(str(directory(root, "script", one) / "model.pt"))
    torch.jit.script(Sum()).save(str(directory(root, "undeclared") / "model.pt"))
    torch.jit.script(Whims()).save(str(directory(root, "whims", one) / "model.pt"))
    ids = {"name": "ids", "datatype": "INT64", "shape": [-1, 1]}
    label = {"name": "label", "datatype": "INT64", "shape": [-1, 1]}
    score = {"name": "score", "datatype": "FP32", "shape": [-1, 1]}
    both = {"signature": {"inputs": [X, ids], "outputs": [score, label]}}
    torch.jit.script(Two()).save(str(directory(root, "two", both) / "model.pt"))
    torch.jit.script(Two()).save(str(directory(root, "one_missing", one) / "model.pt"))
    wrong = {"signature": {"inputs": [X, ids], "outputs": [score, {**label, "datatype": "INT32"}]}}
    torch.jit.script(Two()).save(str(directory(root, "wrong_type", wrong) / "model.pt"))
    flat = {"signature": {"inputs": [X], "outputs": [{**Y, "shape": [-1]}]}}
    torch.jit.script(Sum()).save(str(directory(root, "wrong_shape", flat) / "model.pt"))

    rows = torch.export.Dim("rows", min=1, max=4096)
    exported = torch.export.export(Sum(), (torch.zeros(4, 3),), dynamic_shapes=({0: rows},))
    torch.export.save(exported, directory(root, "exported") / "model.pt2")

    torch.save(Sum(), directory(root, "pickled", one) / "model.pt")
    torch.save({"weight": torch.ones(3)}, directory(root, "weights", one) / "model.pt")

    weights = (root / "script" / "model.pt").read_bytes()
    scorer = directory(root, "scorer", one)
    mar(scorer / "scorer.mar", HANDLER, {"weights.pt": weights, "manifest": {"serializedFile": "weights.pt"}})
    together = {"name": "together", "datatype": "INT64", "shape": [-1]}
    told = {
        "signature": {"inputs": [X], "outputs": [{"name": "total", "datatype": "FP32", "shape": [-1]}, together]},
        "handler": {"body": "row"},
    }
    mar(directory(root, "rows", told) / "rows.mar", ROWS_HANDLER, {}, "rows")
    mar(
        directory(root, "based", {**one, "handler": {"body": "row"}}) / "based.mar",
        BASE_HANDLER,
        {"weights.pt": weights, "manifest": {"serializedFile": "weights.pt"}},
        "based",
    )
    mar(directory(root, "hoarder", one) / "hoarder.mar", HOARDER_HANDLER, {}, "hoarder")
    echo = {"signature": {"inputs": [X], "outputs": [{**Y, "shape": [-1, 3]}]}, "handler": {"body": "binary"}}
    mar(directory(root, "echo", echo) / "echo.mar", ECHO_HANDLER, {}, "echo")
    picky = {**one, "handler": {"body": "row"}}
    mar(directory(root, "picky", picky) / "picky.mar", PICKY_HANDLER, {}, "picky")
    proved = directory(root, "picky_proved", picky)
    mar(proved / "picky.mar", PICKY_HANDLER, {}, "picky")
    (proved / "warmup.jsonl").write_text('{"x": [1, 2, 3]}\n{"x": [4, 5, 6]}\n')
    mar(directory(root, "undeclared_mar") / "m.mar", ROWS_HANDLER, {})
    mar(directory(root, "broken_mar", one) / "m.mar", "raise ImportError('no such thing')", {})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
