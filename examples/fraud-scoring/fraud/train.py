"""Trains the fraud scorer and writes its five versions, each a directory with `model.onnx` and `model.json`.

    v1  small trees, what is live at first
    v2  better and as fast
    v3  v2 plus work nobody measured, on one request in ten
    v4  an operator that the runtime does not have
    v5  good bytes; its manifest carries a wrong digest

Run `python -m fraud.train` to build (cached by the hash of this code and of the libraries that decide the bytes).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from sklearn.compose import ColumnTransformer
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder
from xgboost import XGBClassifier

from fraud import graphs
from fraud.data import CATEGORIES, LOG_COLUMNS, NUMERIC_COLUMNS, Transactions, generate
from fraud.digest import digest, with_one_character_changed, write_sums

MAX_BYTES = 900_000
"""Of a version's directory: a ConfigMap holds at most 1 MiB."""

VERSIONS = ("v1", "v2", "v3", "v4", "v5")
TRAINED_ON = "2026-11-01"
THRESHOLDS = {"block": 0.82, "step_up": 0.60}
Log = Callable[[str], None]


@dataclass(frozen=True)
class Size:
    """How much to train; tests use less."""

    rows: int = 40_000
    test_rows: int = 20_000
    v1_trees: int = 40
    v1_depth: int = 2
    v2_trees: int = 200
    v2_depth: int = 6


@dataclass(frozen=True)
class Built:
    """One version on disk. `digest` is what its manifest says, which for v5 is not what the bytes are."""

    version: str
    directory: Path
    digest: str
    auc: float


def as_numbers(table: Any) -> npt.NDArray[np.float64]:
    """The columns as they are."""
    return np.asarray(table, dtype=np.float64)


def log1p(table: Any) -> npt.NDArray[np.float64]:
    """log(1 + x): for amounts and ages with a long tail."""
    return np.log1p(np.asarray(table, dtype=np.float64))


def pipeline(trees: int, depth: int) -> Pipeline:
    """Preprocessing and XGBoost; takes the object table of `Transactions.table`."""
    logs = [NUMERIC_COLUMNS.index(name) for name in LOG_COLUMNS]
    rest = [i for i, name in enumerate(NUMERIC_COLUMNS) if name not in LOG_COLUMNS]
    prepare = ColumnTransformer(
        [
            ("log", FunctionTransformer(log1p), logs),
            ("as_is", FunctionTransformer(as_numbers), rest),
            (
                "merchant",
                OneHotEncoder(categories=[sorted(CATEGORIES)], handle_unknown="ignore", sparse_output=False),
                [len(NUMERIC_COLUMNS)],
            ),
        ]
    )
    model = XGBClassifier(
        n_estimators=trees,
        max_depth=depth,
        learning_rate=0.08,
        min_child_weight=12,
        subsample=0.8,
        colsample_bytree=0.8,
        tree_method="hist",
        max_bin=128,
        base_score=0.5,
        n_jobs=1,  # the order of additions, and so the bytes, must not depend on the machine's cores
        random_state=20261101,
    )
    return Pipeline([("prepare", prepare), ("trees", model)])


def train(data: Transactions, trees: int, depth: int) -> Pipeline:
    """A fitted pipeline."""
    return pipeline(trees, depth).fit(data.table(), data.label)


def build(root: Path, size: Size | None = None, log: Log = lambda _line: None) -> dict[str, Built]:
    """Trains and writes all versions below `root`, one directory each. Raises ValueError when one is too big."""
    size = size or Size()
    data, test = generate(size.rows, seed=1), generate(size.test_rows, seed=2)
    first = train(data, size.v1_trees, size.v1_depth)
    log(f"v1 trained: {size.v1_trees} trees of depth {size.v1_depth}")
    second = train(data, size.v2_trees, size.v2_depth)
    log(f"v2 trained: {size.v2_trees} trees of depth {size.v2_depth}")
    auc1, auc2 = (float(roc_auc_score(test.label, m.predict_proba(test.table())[:, 1])) for m in (first, second))
    good = graphs.to_onnx(second, "fraud")
    recipes: dict[str, tuple[onnx.ModelProto, float]] = {
        "v1": (graphs.to_onnx(first, "fraud"), auc1),
        "v2": (good, auc2),
        "v3": (graphs.add_slow_rows(good), auc2),
        "v4": (graphs.add_unknown_operator(good), auc2),
        "v5": (good, auc2),
    }
    built = {}
    for version, (model, auc) in recipes.items():
        built[version] = _write(root / version, version, model, auc)
        log(f"{version} written: AUC {auc:.4f}, {_bytes(root / version) / 1000:.0f} kB, {built[version].digest[:19]}…")
    return built


def _write(directory: Path, version: str, model: onnx.ModelProto, auc: float) -> Built:
    directory.mkdir(parents=True)
    (directory / "model.onnx").write_bytes(model.SerializeToString(deterministic=True))
    about = {
        "version": version,
        "features": list(NUMERIC_COLUMNS),
        "categories": list(CATEGORIES),
        "auc": round(auc, 6),
        "thresholds": THRESHOLDS,
        "trainedOn": TRAINED_ON,
    }
    (directory / "model.json").write_text(json.dumps(about, indent=2) + "\n")
    true_digest = write_sums(directory)
    if _bytes(directory) > MAX_BYTES:
        raise ValueError(
            f"{version} has {_bytes(directory)} bytes, more than the {MAX_BYTES} that a ConfigMap can take"
        )
    return Built(version, directory, _claimed(version, true_digest), auc)


def _claimed(version: str, true_digest: str) -> str:
    return with_one_character_changed(true_digest) if version == "v5" else true_digest


def _bytes(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.iterdir())


def cache_root() -> Path:
    """`${SERINUS_CACHE:-~/.cache/serinus}/models/fraud`."""
    return Path(os.environ.get("SERINUS_CACHE") or Path.home() / ".cache" / "serinus") / "models" / "fraud"


def code_hash() -> str:
    """Names what decides the bytes: this code and the libraries' versions."""
    here = Path(__file__).parent
    parts = [(here / name).read_bytes() for name in ("data.py", "graphs.py", "train.py", "digest.py")]
    parts += [
        f"{name}={installed(name)}".encode()
        for name in ("numpy", "scikit-learn", "xgboost-cpu", "skl2onnx", "onnxmltools", "onnx")
    ]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:12]


def cached(root: Path | None = None, log: Log = lambda _line: None) -> dict[str, Built]:
    """All versions, from the cache when this very code built them before. Safe to run twice at once."""
    place = (root or cache_root()) / code_hash()
    if not place.is_dir():
        place.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".building-", dir=place.parent))
        try:
            build(scratch / "out", log=log)
            try:
                (scratch / "out").rename(place)
            except OSError:
                if not place.is_dir():
                    raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return {v: _read(place / v) for v in VERSIONS}


def _read(directory: Path) -> Built:
    about = json.loads((directory / "model.json").read_text())
    version = str(about["version"])
    return Built(version, directory, _claimed(version, digest(directory)), float(about["auc"]))


def main() -> None:
    """Builds into the cache, or into `--out`, and prints one line per version."""
    parser = argparse.ArgumentParser(description="Train the fraud scorer and write its five versions.")
    parser.add_argument("--out", type=Path, help="an empty or new folder; default is the cache")
    arguments = parser.parse_args()
    started = time.monotonic()
    versions = build(arguments.out, log=print) if arguments.out else cached(log=print)
    for item in versions.values():
        print(f"{item.version}  {item.digest}  AUC {item.auc:.4f}  {item.directory}")
    print(f"{time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    main()
