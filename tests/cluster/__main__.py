"""The command line: ``python -m cluster up|down|status|env|load|image|package|logs``."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from cluster import wheel
from cluster.detect import PROVIDERS, get
from cluster.errors import ClusterError
from cluster.images import IMAGES
from cluster.progress import say, stage
from cluster.provider import ClusterInfo, Provider


def parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    top = argparse.ArgumentParser(prog="python -m cluster", description="A Kubernetes cluster for tests and the demo.")
    top.add_argument("--provider", choices=sorted(PROVIDERS), help="default: $CLUSTER, else what can run here")
    commands = top.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="start the cluster, or find that it runs")
    commands.add_parser("down", help="stop the cluster and leave nothing behind")
    commands.add_parser("status", help="say what runs; status 1 when the cluster is not healthy")
    commands.add_parser("env", help="print shell lines that point kubectl at the cluster")
    load = commands.add_parser("load", help="make the images of a docker archive available to pods")
    load.add_argument("archive", type=Path)
    image = commands.add_parser("image", help="build an image of the project; prints the path of its docker archive")
    image.add_argument("name", choices=[*IMAGES, "base"])
    image.add_argument("--load", action="store_true", help="load it into the cluster, too")
    commands.add_parser("package", help="build the runtime's own package, compiled where possible; prints its folder")
    logs = commands.add_parser("logs", help="print what a component has written")
    logs.add_argument("component")
    return top


def exports(info: ClusterInfo) -> str:
    """Shell lines that set a cluster's variables."""
    return "\n".join(f"export {key}={shlex.quote(value)}" for key, value in info.environment().items())


def run(options: argparse.Namespace, provider: Provider) -> int:
    """Do what the command line says; returns the exit status."""
    match options.command:
        case "up":
            with stage(f"{provider.name} up"):
                info = provider.start()
            print(exports(info))
        case "down":
            provider.stop()
        case "load":
            provider.load_image(options.archive)
        case "image":
            archive = provider.build_image(options.name)
            if options.load:
                provider.load_image(archive)
            print(archive)
        case "package":
            print(wheel.unpacked())
        case "logs":
            print(provider.logs(options.component), end="")
        case "status":
            return _status(provider)
        case "env":
            running = provider.running()
            if running is None:
                raise ClusterError(f"the cluster {provider.name} does not run; start it with: python -m cluster up")
            print(exports(running))
    return 0


def _status(provider: Provider) -> int:
    info = provider.running()
    for line in provider.status():
        print(line)
    print(f"{provider.name}: {'healthy' if info else 'not healthy, or not running'}")
    return 0 if info else 1


def main() -> int:
    """Entry point."""
    options = parser().parse_args()
    try:
        return run(options, get(options.provider))
    except ClusterError as error:
        say(f"error: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
