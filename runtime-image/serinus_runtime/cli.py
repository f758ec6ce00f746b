"""The command line: `serinus-runtime serve`, `fetch`, and what helps before a model is served."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop

from serinus_runtime import __version__, digest
from serinus_runtime.commands.tell import Format
from serinus_runtime.config import TERMINATION_LOG, Config, from_environment
from serinus_runtime.failures import FailureError, Reason, report

_FLAGS = {
    "model_uri": "where the model is (SERINUS_MODEL_URI)",
    "model_digest": "the digest it must have, sha256:... (SERINUS_MODEL_DIGEST)",
    "model_dir": "the directory it is served from (SERINUS_MODEL_DIR)",
    "model_name": "the name in /v2/models/NAME (SERINUS_MODEL_NAME)",
    "model_version": "the version that answers name (SERINUS_MODEL_VERSION)",
    "host": "address to listen on, default all (SERINUS_HOST)",
    "http_port": "port for inference and health, default 8080 (SERINUS_HTTP_PORT)",
    "grpc_port": "port for gRPC, default 8081; off: none (SERINUS_GRPC_PORT)",
    "metrics_port": "port for /metrics, default 8082 (SERINUS_METRICS_PORT)",
}
_FETCH_FLAGS = ("model_uri", "model_digest", "model_dir")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit code. Failures are told on stderr and in the termination message."""
    arguments = _parser().parse_args(argv)
    environ = dict(os.environ)
    try:
        if arguments.command == "digest":
            return _digest(arguments.directory, manifest=arguments.manifest)
        if (command := getattr(arguments, "module", None)) is not None:
            # Imported when asked for: serving needs none of them.
            code: int = importlib.import_module(f"serinus_runtime.commands.{command}").run(arguments)
            return code
        for flag in _FLAGS:
            if (value := getattr(arguments, flag, None)) is not None:
                environ[f"SERINUS_{flag.upper()}"] = value
        config = from_environment(environ)
        return _fetch(config) if arguments.command == "fetch" else _serve(config)
    except FailureError as failure:
        return report(failure, environ.get("SERINUS_TERMINATION_LOG") or TERMINATION_LOG)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="serinus-runtime", description="Serves one ONNX model.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    fetch = commands.add_parser("fetch", help="download the model, verify its digest, put it into its directory")
    serve = commands.add_parser("serve", help="verify, load, warm up and serve a model directory")
    for command, flags in ((fetch, _FETCH_FLAGS), (serve, tuple(_FLAGS))):
        for flag in flags:
            command.add_argument(f"--{flag.replace('_', '-')}", help=_FLAGS[flag])
    _add_tools(commands)
    show = commands.add_parser("digest", help="print the digest of a model directory")
    show.add_argument("directory", type=Path)
    show.add_argument("--manifest", action="store_true", help="print the SHA256SUMS file instead")
    return parser


def _add_tools(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    reference = commands.add_parser("reference", help="write reference.json, which drift is measured against")
    reference.add_argument("--data", type=Path, required=True, help="rows the model was made with: .csv, .jsonl, .npz")
    reference.add_argument("--out", type=Path, help="write this file instead of reference.json in the directory")
    for command in (reference,):
        command.add_argument("directory", type=Path, help="the model directory")
        command.add_argument("-o", "--output", type=Format, choices=list(Format), default=Format.TABLE)
        command.set_defaults(module=command.prog.rpartition(" ")[2])


def _digest(directory: Path, *, manifest: bool) -> int:
    try:
        text = digest.manifest(directory)
    except (OSError, digest.UnsafeDirectoryError) as error:
        raise FailureError(Reason.INVALID_CONFIG, f"cannot compute the digest of {directory}: {error}") from error
    if manifest:
        sys.stdout.buffer.write(text)
        sys.stdout.buffer.flush()
    else:
        print(digest.digest_of_manifest(text))
    return 0


def _fetch(config: Config) -> int:
    from serinus_runtime.fetch import fetch

    if not config.model_uri:
        raise FailureError(Reason.INVALID_CONFIG, "SERINUS_MODEL_URI is empty: say where the model is")
    print(fetch(config))
    return 0


def _serve(config: Config) -> int:
    from serinus_runtime.server import run

    code: int = uvloop.run(run(config))
    return code
