"""`python -m fuzz [TARGET...] [seconds=60]`: fuzzes each target for that long; a finding is kept in build/fuzz."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOUND = ROOT / "build" / "fuzz"


def _one(name: str, seconds: int) -> None:
    """Fuzzes in this process: libFuzzer never comes back."""
    import atheris

    with atheris.instrument_imports(include=["serinus_runtime"]):
        from fuzz.targets import TARGETS, WORDS

    target, seeds = TARGETS[name]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "corpus").mkdir()
        for number, seed in enumerate(seeds):
            (Path(folder) / "corpus" / str(number)).write_bytes(seed)
        words = Path(folder) / "words"
        words.write_text("".join('"' + word.replace('"', '\\"') + '"\n' for word in WORDS))
        options = [
            f"-max_total_time={seconds}", "-max_len=4096", "-rss_limit_mb=2048", "-timeout=10", "-print_final_stats=1",
            f"-artifact_prefix={FOUND}/{name}-", f"-dict={words}",
        ]  # fmt: skip
        atheris.Setup([sys.argv[0], *options, f"{folder}/corpus"], target)
        atheris.Fuzz()


def main() -> int:
    """Each target in a process of its own; 1 when anything was found."""
    words = sys.argv[1:]
    if words[:1] == ["--one"]:
        _one(words[1], int(words[2]))
        return 0
    from fuzz.targets import TARGETS

    seconds = int(words.pop()) if words and words[-1].isdigit() else 60
    if unknown := set(words) - TARGETS.keys():
        sys.exit(f"unknown {sorted(unknown)}; there are {', '.join(TARGETS)}")
    FOUND.mkdir(parents=True, exist_ok=True)
    result: dict[str, int] = {}
    for name in words or TARGETS:
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "fuzz", "--one", name, str(seconds)], capture_output=True, text=True, check=False
        )
        lines = done.stderr.splitlines()
        runs = next((int(line.split()[-1]) for line in lines if "number_of_executed_units" in line), 0)
        result[name] = runs
        print(f"{name:10} {runs:>10,} inputs in {time.monotonic() - started:.0f} s", flush=True)
        if done.returncode:
            print("\n".join(lines[-40:]))
            print(f"FOUND: {name}; the input is in {FOUND.relative_to(ROOT)}")
            return 1
    print("RESULT", *(f"fuzz_{name}={runs}" for name, runs in result.items()), "findings=0")
    return 0


if __name__ == "__main__":
    sys.exit(main())
