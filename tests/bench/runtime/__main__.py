"""The runtime beside its peers: same models, same inputs, one server at a time on core 0, load on core 1.

    make bench-runtime [BENCH_PEERS=serinus,bare] [BENCH_MODELS=trees,mlp,image] [BENCH_SECONDS=2] [BENCH_ROUNDS=1]

`ratio` is what one row costs ONNX Runtime when it is called in a loop in one process, one row at a time, divided by the
CPU that the whole server used per request at 64 connections, in the same run: 1 would be a server that costs nothing,
and batching may exceed it. Everything stays on this machine, and ends by itself.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

from bench.runtime import load, models
from bench.runtime.catalog import PEERS, Peer
from bench.runtime.copies import copies
from bench.runtime.pictures import OPEN_RATE, Figures, picture, story
from bench.runtime.servers import CACHE, JSON, ROOT, Running, UnavailableError, free_port

CONNECTIONS = (1, 16, 64)
_INPUTS = 2000
_IMAGES = 8
_DEDICATED = ("litserve", "mlserver", "bentoml", "kserve", "pytriton", "rayserve", "torchserve")


def _setting(name: str, default: str) -> str:
    return os.environ.get(f"BENCH_{name}") or default


def _bodies(form: str) -> list[bytes]:
    def one(row: list[float]) -> object:
        if form == "bento":
            return {"x": [row]}
        return {"inputs": [{"name": "x", "shape": [1, models.FEATURES], "datatype": "FP32", "data": row}]}

    return [json.dumps(one(row)).encode() for row in models.rows(_INPUTS)]


def _images() -> tuple[list[bytes], dict[str, str]]:
    """Bodies with raw tensors, and the headers that say so. JSON is padded so that the tensor lies aligned."""
    tensors = [image.tobytes() for image in models.images(_IMAGES)]
    told = {"name": "x", "shape": [1, *models.IMAGE], "datatype": "FP32"}
    head = json.dumps({"inputs": [{**told, "parameters": {"binary_data_size": len(tensors[0])}}]}).encode()
    head += b" " * (-len(head) % 8)
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    return [head + tensor for tensor in tensors], headers


def reference(model: Path, core: int | None) -> float:
    """Microseconds of CPU per call of ONNX Runtime with one row, in a process of its own: the best of three."""
    code = "from bench.runtime.__main__ import time_in_process as t; import sys; print(t(sys.argv[1]))"
    command = [sys.executable, "-c", code, str(model)]
    if core is not None:
        command = ["taskset", "-c", str(core), *command]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'tests'}:{ROOT / 'runtime-image'}"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
    return float(done.stdout)


def time_in_process(model: str) -> float:
    """What `reference` measures, in this process."""
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    images = session.get_inputs()[0].shape[1:] == list(models.IMAGE)
    rows = models.images(_IMAGES) if images else np.array(models.rows(_INPUTS), dtype=np.float32)
    best = float("inf")
    for _ in range(3):
        calls, started = 0, time.process_time()
        while time.process_time() - started < 0.3:
            at = calls % len(rows)
            session.run(["y"], {"x": rows[at : at + 1]})
            calls += 1
        best = min(best, (time.process_time() - started) / calls)
    return best * 1e6


def measure(peer: Peer, model: Path, seconds: float, cores: tuple[int | None, int | None]) -> Figures:
    """One round of one peer. Raises UnavailableError."""
    headers = dict(JSON)
    if model.parent.name == "image":
        bodies, headers = _images()
    else:
        bodies = _bodies(peer.body)
    payloads = load.requests(peer.path, bodies, headers)
    found: Figures = {}
    port = free_port()
    with Running(peer, model, port, cores[0], bodies[0], headers) as server:
        load.closed(port, payloads, 16, peer.warm_seconds, cores[1])
        for connections in CONNECTIONS:
            before = server.cpu()
            outcome = load.closed(port, payloads, connections, seconds, cores[1])
            spent = server.cpu() - before
            found[f"rps{connections}"] = outcome.rate
            found[f"p50_{connections}"] = outcome.p50
            found[f"p99_{connections}"] = outcome.p99
            found[f"failed{connections}"] = outcome.failed
            if outcome.answered:
                found[f"cpu{connections}"] = spent / outcome.answered * 1e6
        before, began = server.cpu(), time.monotonic()
        outcome = load.open_loop(port, payloads, OPEN_RATE, seconds, cores[1])
        found |= {"open_p50": outcome.p50, "open_p99": outcome.p99, "open_failed": outcome.failed}
        found["open_core"] = (server.cpu() - before) / (time.monotonic() - began)
        found["mb"] = server.memory()
    return found


def _cores() -> tuple[int | None, int | None]:
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        print("only one core: server and load share it, and the figures say little")
        return None, None
    return allowed[0], allowed[1]


def _columns(ratio: Callable[[Figures], float]) -> list[tuple[str, Callable[[Figures], str]]]:
    def number(key: str, form: str = ".1f") -> Callable[[Figures], str]:
        return lambda figures: format(figures[key], form) if key in figures else "-"

    return [
        ("1 conn req/s", number("rps1", ",.0f")),
        ("16 conns", number("rps16", ",.0f")),
        ("64 conns", number("rps64", ",.0f")),
        ("p50 ms", number("p50_64")),
        ("p99 ms", number("p99_64")),
        ("CPU us/req", number("cpu64", ",.0f")),
        ("ratio", lambda figures: format(ratio(figures), ".3f")),
        (f"open {OPEN_RATE:.0f}/s p50", number("open_p50")),
        ("p99 ms", number("open_p99")),
        ("core", number("open_core", ".2f")),
        ("failed", lambda f: format(sum(v for k, v in f.items() if "failed" in k), ",.0f")),
        ("MB", number("mb", ",.0f")),
    ]


def table(reference_us: float, results: dict[str, Figures]) -> str:
    """The figures of one model, best first."""
    columns = _columns(lambda figures: reference_us / figures["cpu64"] if figures.get("cpu64") else 0.0)
    ordered = sorted(results.items(), key=lambda item: -item[1].get("rps64", 0.0))
    rows = [["", *(name for name, _ in columns)]]
    rows += [[name, *(show(figures) for _, show in columns)] for name, figures in ordered]
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    )


def _compared(results: dict[str, dict[str, Figures]]) -> dict[str, float]:
    """Requests/s at 64 connections, all features on, over those of others; and batched over one by one."""
    found: dict[str, float] = {}
    trees, mlp = results.get("trees", {}), results.get("mlp", {})
    own = trees.get("serinus-log", {}).get("rps64", 0.0)
    others = {name: trees[name].get("rps64", 0.0) for name in (*_DEDICATED, "fastapi") if name in trees}
    if best := max((others[name] for name in _DEDICATED if name in others), default=0.0):
        found["x_best_server"] = own / best
    for name in ("fastapi", "torchserve"):
        if others.get(name):
            found[f"x_{name}"] = own / others[name]
    if single := mlp.get("serinus-unbatched", {}).get("rps64", 0.0):
        found["batching_gain"] = (
            max(mlp.get(name, {}).get("rps64", 0.0) for name in ("serinus", "serinus-delay")) / single
        )
    return found


def _middle(rounds: Iterable[Figures]) -> Figures:
    gathered: dict[str, list[float]] = defaultdict(list)
    for figures in rounds:
        for key, value in figures.items():
            gathered[key].append(value)
    return {key: statistics.median(values) for key, values in gathered.items()}


def _wrk() -> None:
    if shutil.which("wrk"):
        return
    if os.geteuid() == 0 and shutil.which("apt-get"):
        subprocess.run(["apt-get", "install", "-y", "--no-install-recommends", "wrk"], check=True, capture_output=True)
    else:
        sys.exit("wrk is needed; on Debian: apt-get install wrk")


def main() -> int:
    """Runs everything, prints the tables; the last line is for machines."""
    _wrk()
    seconds, rounds = float(_setting("SECONDS", "2")), int(_setting("ROUNDS", "1"))
    known = {peer.name: peer for peer in PEERS}
    wanted = _setting("PEERS", ",".join(known)).split(",")
    if unknown := set(wanted) - known.keys():
        sys.exit(f"unknown peers {sorted(unknown)}; there are {', '.join(known)}")
    cores = _cores()
    results: dict[str, dict[str, Figures]] = {}
    result = {}
    for name in _setting("MODELS", "trees,mlp,image").split(","):
        model = models.make(name, CACHE / "models" / name)
        gathered: dict[str, list[Figures]] = defaultdict(list)
        references: list[float] = []
        absent: dict[str, str] = {}
        for number in range(rounds):
            references.append(reference(model, cores[0]))
            for peer in (known[each] for each in wanted):
                if peer.name in absent or name not in peer.models:
                    continue
                try:
                    gathered[peer.name].append(measure(peer, model, seconds, cores))
                except (UnavailableError, subprocess.SubprocessError, OSError) as error:
                    absent[peer.name] = str(error).splitlines()[0] if str(error) else repr(error)
                    continue
                figures = gathered[peer.name][-1]
                print(
                    f"{name} round {number + 1} {peer.name}: {figures['rps64']:,.0f} req/s at 64, "
                    f"{figures.get('cpu64', 0):,.0f} us/req", flush=True,
                )  # fmt: skip
        reference_us = statistics.median(references)
        results[name] = {peer: _middle(figures) for peer, figures in gathered.items()}
        print(f"\n{name}: ONNX Runtime in one process, one row per call: {reference_us:.1f} us")
        print(table(reference_us, results[name]))
        for missing, reason in absent.items():
            print(f"not measured: {missing}: {reason}")
        print(flush=True)
        result[f"{name}_reference_us"] = f"{reference_us:.1f}"
        for served, figures in results[name].items():
            if figures.get("cpu64"):
                result[f"{name}_{served}_ratio"] = f"{reference_us / figures['cpu64']:.3f}"
            for key in ("rps64", "p99_64", "open_p99"):
                result[f"{name}_{served}_{key}"] = f"{figures.get(key, 0):.1f}"
    result |= {key: f"{value:.2f}" for key, value in _compared(results).items()}
    for key, value in copies().items():
        print(f"1 MB of FP32, {key.replace('_', ' ')}: {value:.2f} copies of memory")
        result[f"copies_{key}"] = f"{value:.2f}"
    plot = ROOT / "build" / "bench" / "runtime.png"
    if any(results.values()):
        picture({name: peers for name, peers in results.items() if peers}, plot)
    if "serinus-unbatched" in results.get("mlp", {}):
        story(results["mlp"], plot.with_name("runtime-batching.png"))
    plot.parent.mkdir(parents=True, exist_ok=True)
    plot.with_suffix(".json").write_text(json.dumps(results, indent=1))
    print(f"plot: {plot.relative_to(ROOT)}")
    print("RESULT", *(f"{key}={value}" for key, value in result.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
