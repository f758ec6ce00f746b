#!/bin/sh
# Recompiles requirements/*.lock from requirements/*.in: exact versions with hashes, no index addresses.
set -eu
cd "$(dirname "$0")/.."
python=$(tests/bootstrap.sh)
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
"$python" -m venv "$tools"
"$tools/bin/python" -m pip install --quiet uv
for name in operator runtime openvino dev; do
    "$tools/bin/uv" pip compile --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet \
        "requirements/$name.in" --output-file "requirements/$name.lock"
done
