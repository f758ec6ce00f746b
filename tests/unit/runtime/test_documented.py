"""The README's examples, run as they stand there by the real curl: what is documented works."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from cluster.errors import ClusterError
from cluster.packages import install
from serinus_runtime.config import Config
from serinus_runtime.server import load_model
from unit.runtime.support import Live

ROOT = Path(__file__).parents[3]
README = ROOT / "runtime-image/README.md"


def examples() -> list[tuple[str, str]]:
    """Every curl command of the README, with the answer that is printed below it, if one is."""
    found: list[tuple[str, str]] = []
    for block in re.findall(r"^```\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL):
        for text in re.split(r"^(?=curl )", block, flags=re.MULTILINE):
            if not text.startswith("curl "):
                continue
            command, _, answer = text.partition("'\n") if text.count("'") >= 2 else text.partition("\n")
            found.append((command + ("'" if text.count("'") >= 2 else ""), answer.strip()))
    return found


def documented_model(directory: Path) -> Path:
    """The model of the README's examples: features (amount, hour) and merchant_category in, label and scores out."""
    directory.mkdir()
    nodes = [
        helper.make_node("Cast", ["features"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Gather", ["f", "one"], ["hour"], axis=1),
        helper.make_node("Mul", ["hour", "small"], ["score"]),
        helper.make_node("Sub", ["unit", "score"], ["rest"]),
        helper.make_node("Concat", ["rest", "score"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0),
        helper.make_node("Shape", ["merchant_category"], ["_shape"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, 2]),
            helper.make_tensor_value_info("merchant_category", TensorProto.STRING, [None, 1]),
        ],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, [None]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 2]),
        ],
        [
            helper.make_tensor("one", TensorProto.INT64, [1], [1]),
            helper.make_tensor("small", TensorProto.FLOAT, [1], [0.07 / 3]),
            helper.make_tensor("unit", TensorProto.FLOAT, [1], [1.0]),
        ],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9),
        str(directory / "model.onnx"),
    )
    about = re.search(r'```\n(\{"features": .*?)```', README.read_text(), re.DOTALL)
    assert about, "the README's model.json is not found"
    json.loads(about[1])
    (directory / "model.json").write_text(about[1])
    return directory


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    try:
        install({"curl": "/usr/bin/curl"})
    except ClusterError as error:
        pytest.skip(str(error))
    directory = documented_model(tmp_path_factory.mktemp("documented") / "m")
    with Live(load_model(Config(model_dir=directory)), model_dir=directory) as live:
        yield live


def test_there_are_examples() -> None:
    assert len(examples()) >= 5
    assert sum(bool(answer) for _, answer in examples()) >= 4


@pytest.mark.parametrize(("command", "answer"), examples())
def test_an_example_of_the_readme_does_what_it_says(served: Live, command: str, answer: str) -> None:
    assert shutil.which("curl")
    here = command.replace("localhost:8080", f"127.0.0.1:{served.port}")
    here = here.replace("localhost:8082", f"127.0.0.1:{served.server.metrics_port}")
    here = here.replace("curl ", "curl -sS --fail-with-body --max-time 20 ", 1)
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {here}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    if answer.endswith("..."):
        assert done.stdout.startswith(answer.removesuffix("..."))
    elif answer:
        told, shown = json.loads(done.stdout), json.loads(answer)
        assert told.keys() == shown.keys()
        for name, value in shown.items():
            assert told[name] == pytest.approx(value, abs=1e-6) if not isinstance(value, str) else told[name] == value
    else:
        assert done.stdout
