#!/bin/sh
# Prints the Python of the project's own environment, making it first where needed. Everything that make runs comes
# through here, so a fresh machine needs make and git and nothing else.
#
# The environment lies under ${SERINUS_CACHE:-~/.cache/serinus}, keyed by the lock file and the Python version.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
cache=${SERINUS_CACHE:-$HOME/.cache/serinus}
lock=$root/requirements/dev.lock

say() { printf '%s\n' "$*" >&2; }

python=
for name in ${PYTHON:-} python3.11 python3.12 python3.13 python3; do
    if command -v "$name" >/dev/null 2>&1 && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$(command -v "$name")
        break
    fi
done
if [ -z "$python" ] || ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        say "installing python3 and python3-venv from Debian"
        { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
            python3 python3-venv ca-certificates; } >&2
        python=${python:-$(command -v python3)}
    else
        say "Python 3.11 or newer with its venv module is needed; on Debian: apt-get install python3 python3-venv"
        exit 1
    fi
fi
key=$({ cat "$lock"; "$python" --version; } | sha256sum | cut -c1-16)
home=$cache/python/$key
if [ ! -x "$home/bin/.ready" ]; then
    say "installing the project's Python packages (once; about a minute)"
    rm -rf "$home"
    mkdir -p "$cache/python"
    "$python" -m venv "$home" >&2
    "$home/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r "$lock" >&2
    printf '#!/bin/sh\n' > "$home/bin/.ready"
    chmod 755 "$home/bin/.ready"
fi
printf '%s\n' "$home/bin/python"
