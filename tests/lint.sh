#!/bin/sh
# ruff, mypy, import layers and the generated files, with the Python given as the only argument.
set -eu
bin=$(dirname "$1")
"$bin/ruff" check operator runtime-image tests examples
"$bin/ruff" format --check operator runtime-image tests examples
"$bin/mypy" operator
"$bin/mypy" runtime-image/serinus_runtime
"$bin/mypy" tests/cluster tests/support tests/e2e tests/bench/operator.py tests/bench/path.py tests/bench/exposure tests/bench/matrix tests/providers examples/fraud-scoring/fraud
"$bin/mypy" tests/bench/runtime --exclude peers/
PYTHONPATH=operator "$bin/lint-imports" --no-cache
"$1" -m serinus.api.crd --check
