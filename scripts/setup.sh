#!/usr/bin/env bash
# Make the virtual environment: find a Python, install the pinned packages, then this package.
# usage: setup.sh VENV_DIRECTORY
set -euo pipefail
venv=$1

fail() { printf 'Cannot set up: %s\n' "$1" >&2; exit 1; }

find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11; do
    if [ -n "$candidate" ] && command -v "$candidate" >/dev/null &&
      "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
      printf '%s' "$candidate"
      return
    fi
  done
  fail "no Python 3.11, 3.12 or 3.13 found. Install one, or name it: make setup PYTHON=/path/to/python3.12"
}

[ "$(uname -s)" = Linux ] || fail "the embedded ClickHouse of this set-up runs on Linux only"
python=$(find_python)
if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
  fail "$python has no venv module. On Debian or Ubuntu: apt-get install python3-venv"
fi
free_mb=$(df -Pm . | awk 'NR==2 {print $4}')
[ "$free_mb" -ge 3000 ] || fail "$free_mb MB free here, the environment needs 3000"

printf 'Setting up %s with %s (a minute or two)\n' "$venv" "$("$python" --version)"
if ! "$venv/bin/python" -c 'import pip' 2>/dev/null; then
  rm -rf "$venv"
  "$python" -m venv "$venv"
fi
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
  -r requirements-dev.lock || fail "pip could not install requirements-dev.lock; is the package index reachable?"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
  -r requirements-no-deps.lock || fail "pip could not install requirements-no-deps.lock; is the package index reachable?"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
