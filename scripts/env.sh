#!/usr/bin/env bash
# Make the file with the secrets of docker-compose.yaml, readable by its owner only.
# usage: env.sh [FILE], by default .env; a file that exists is left alone.
set -euo pipefail
file=${1:-.env}
umask 077

if [ -e "$file" ]; then
  printf '%s exists and stays as it is. To make new secrets, move it away first.\n' "$file"
  exit
fi

# Hexadecimal digits need no quoting in URLs, JSON or XML.
random_hex() { head -c "$1" /dev/urandom | od -An -v -tx1 | tr -d ' \n'; }

# Written in full before it gets its name, so that an interrupted run leaves no half file.
temporary=$(mktemp "$file.XXXXXX")
trap 'rm -f "$temporary"' EXIT
cat > "$temporary" <<END
# Secrets of the Docker Compose stack, made by \`make env\`. Keep this file to yourself.
# Databases take their passwords when they are first started: docs/docker.md says how to change one.
AIRFLOW_ADMIN_PASSWORD=$(random_hex 12)
AIRFLOW_FERNET_KEY=$(head -c 32 /dev/urandom | base64 | tr '+/' '-_')
AIRFLOW_JWT_SECRET=$(random_hex 32)
AIRFLOW_SECRET_KEY=$(random_hex 32)
CLICKHOUSE_PASSWORD=$(random_hex 16)
POSTGRES_PASSWORD=$(random_hex 16)

# Where alerts go, an Airflow connection of type apprise; empty: nowhere.
AIRFLOW_CONN_LAION_ALERTS=
END
mv -n "$temporary" "$file"
printf 'Made %s. Log in to Airflow as admin with AIRFLOW_ADMIN_PASSWORD from it.\n' "$file"
