"""The command line: `serinus-runtime serve`, `fetch`, and what helps before a model is served."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import uvloop

from serinus_runtime import __version__, digest
from serinus_runtime.commands.tell import Format
from serinus_runtime.config import TERMINATION_LOG, Config, from_environment
from serinus_runtime.failures import FailureError, Reason, report

_FLAGS = {
    "config": "settings from this file, .yaml, .json or .toml (SERINUS_CONFIG)",
    "model_uri": "where the model is (SERINUS_MODEL_URI)",
    "model_digest": "the digest it must have, sha256:... (SERINUS_MODEL_DIGEST)",
    "model_dir": "the directory it is served from (SERINUS_MODEL_DIR)",
    "model_name": "the name in /v2/models/NAME (SERINUS_MODEL_NAME)",
    "model_version": "the version that answers name (SERINUS_MODEL_VERSION)",
    "host": "address to listen on, default all (SERINUS_HOST)",
    "http_port": "port for inference and health, default 8080 (SERINUS_HTTP_PORT)",
    "grpc_port": "port for gRPC, default 8081; off: none (SERINUS_GRPC_PORT)",
    "metrics_port": "port for /metrics, default 8082 (SERINUS_METRICS_PORT)",
    "model_control": "explicit: keys with scopes=control may load and unload the model (SERINUS_MODEL_CONTROL)",
}
JOIN_FLAGS = {
    "live": "revision that users see (SERINUS_JOIN_LIVE)",
    "candidate": "revision that gets the mirrored requests (SERINUS_JOIN_CANDIDATE)",
    "pods": "names of the pods of both, host:port, with commas (SERINUS_JOIN_PODS)",
    "tolerance": "largest difference of numbers that agree; without, labels decide (SERINUS_JOIN_TOLERANCE)",
    "samples": "requests kept as samples, default 0 (SERINUS_JOIN_SAMPLES)",
    "redact": "inputs and columns that are never shown, with commas (SERINUS_JOIN_REDACT)",
    "window": "longest wait for a partner, default 30s (SERINUS_JOIN_WINDOW)",
    "metrics_port": "port for /metrics and /report, default 8082 (SERINUS_METRICS_PORT)",
}
_FETCH_FLAGS = ("config", "model_uri", "model_digest", "model_dir")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit code. Failures are told on stderr and in the termination message."""
    arguments = _parser().parse_args(argv)
    environ = dict(os.environ)
    told = environ

    def settings() -> Config:
        """What is set now: the file may say something else than before."""
        nonlocal told
        if environ.get("SERINUS_CONFIG"):
            from serinus_runtime.configfile import with_file

            told = with_file(environ)
        return from_environment(told)

    try:
        if arguments.command == "digest":
            return _digest(arguments.directory, manifest=arguments.manifest)
        if (command := getattr(arguments, "module", None)) is not None:
            # Imported when asked for: serving needs none of them.
            code: int = importlib.import_module(f"serinus_runtime.commands.{command}").run(arguments)
            return code
        if (directory := getattr(arguments, "directory", None)) is not None:
            environ["SERINUS_MODEL_DIR"] = directory
        for flag in _FLAGS:
            if (value := getattr(arguments, flag, None)) is not None:
                environ[f"SERINUS_{flag.upper()}"] = value
        return _fetch(settings()) if arguments.command == "fetch" else _serve(settings)
    except FailureError as failure:
        return report(failure, told.get("SERINUS_TERMINATION_LOG") or TERMINATION_LOG)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="serinus-runtime", description="Serves a model over the Open Inference Protocol.", epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    fetch = commands.add_parser(
        "fetch", help="download the model, verify its digest, put it into its directory", formatter_class=_SettingsHelp
    )
    serve = commands.add_parser(
        "serve", help="verify, load, warm up and serve a model directory", formatter_class=_SettingsHelp
    )
    serve.add_argument("directory", nargs="?", help="the model directory, as --model-dir")
    for command, flags in ((fetch, _FETCH_FLAGS), (serve, tuple(_FLAGS))):
        for flag in flags:
            command.add_argument(f"--{flag.replace('_', '-')}", help=_FLAGS[flag], metavar="...")
    _add_tools(commands)
    join = commands.add_parser("join", help="compare two revisions that answer the same requests: a shadow's joiner")
    for flag, text in JOIN_FLAGS.items():
        join.add_argument(f"--{flag.replace('_', '-')}", help=text, metavar="...")
    join.set_defaults(module="join")
    show = commands.add_parser("digest", help="print the digest of a model directory")
    show.add_argument("directory", type=Path)
    show.add_argument("--manifest", action="store_true", help="print the SHA256SUMS file instead")
    return parser


_EXIT_CODES = "exit codes:\n   0  it did what was asked\n   2  the command line is wrong\n" + "\n".join(
    f"  {reason.exit_code}  {reason.value}" for reason in sorted(Reason, key=lambda reason: reason.exit_code)
)


class _SettingsHelp(argparse.RawDescriptionHelpFormatter):
    """Every setting and exit code at the end, looked up only when help is asked for."""

    def format_help(self) -> str:
        from serinus_runtime import settings

        return (
            f"{super().format_help()}\nsettings, as variables of the environment; flags win over them, and they over "
            f"the file that SERINUS_CONFIG names:\n{settings.table()}\n\n{_EXIT_CODES}\n"
        )


def _add_tools(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    inspect = commands.add_parser("inspect", help="what a model directory holds, and what will trouble its server")
    reference = commands.add_parser("reference", help="write reference.json, which drift is measured against")
    reference.add_argument("--data", type=Path, required=True, help="rows the model was made with: .csv, .jsonl, .npz")
    reference.add_argument("--out", type=Path, help="write this file instead of reference.json in the directory")
    bench = commands.add_parser("bench", help="what the model costs by batch size and threads, and what to set")
    bench.add_argument("--data", type=Path, help="rows to run, .csv, .jsonl or .npz; random numbers otherwise")
    bench.add_argument("--max-batch", type=int, default=64, help="largest batch, default 64")
    bench.add_argument("--threads", default="1", help="thread counts to try, such as 1,2,4; default 1")
    bench.add_argument("--seconds", type=float, default=0.3, help="for each line of the table, default 0.3")
    pack = commands.add_parser("pack", help="one archive of the directory, the same bytes for the same files")
    for command in (inspect, reference, bench, pack):
        command.add_argument("directory", type=Path, help="the model directory")
        command.add_argument("-o", "--output", type=Format, choices=list(Format), default=Format.TABLE)
        command.set_defaults(module=command.prog.rpartition(" ")[2])
    pack.add_argument("out", type=Path, help="the archive, .tar.gz")
    pack.add_argument("--model-version", help="the version that its manifest.json names; default: none", metavar="V")


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


def _serve(settings: Callable[[], Config]) -> int:
    from serinus_runtime.server import run

    code: int = uvloop.run(run(settings(), settings))
    return code
