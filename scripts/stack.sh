#!/usr/bin/env bash
# Start the stack of docker-compose.yaml, having looked at what would stop it.
# usage: stack.sh, in the project's root
set -euo pipefail

fail() { printf 'Cannot start: %s\n' "$1" >&2; exit 1; }

command -v docker > /dev/null || fail "docker is not installed; \`make demo\` needs none"
version=$(docker compose version --short 2> /dev/null) || fail "this docker has no \`docker compose\`; install the Compose plugin"
[ "$(printf '%s\n' 2.24 "${version#v}" | sort -V | head -n 1)" = 2.24 ] ||
  fail "Docker Compose is $version; 2.24 or newer is needed"
[ -e .env ] || bash scripts/env.sh
bash scripts/env.sh --check || fail "see above"
# The ports of a stack that runs already are its own.
[ -n "$(docker compose ps --quiet)" ] || bash scripts/env.sh --check-ports || fail "see above"
exec docker compose up --detach --build --wait
