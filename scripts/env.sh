#!/usr/bin/env bash
# Make the file with the secrets of docker-compose.yaml, readable by its owner only, or check it.
# usage: env.sh [FILE]           by default .env; a file that exists is left alone
#        env.sh --check [FILE]   say what is wrong with it
#        env.sh --check-ports [FILE]   say which of its ports are taken
set -euo pipefail

# A secret a line; hexadecimal digits need no quoting in URLs, JSON or XML.
secrets="AIRFLOW_ADMIN_PASSWORD AIRFLOW_OPERATOR_PASSWORD AIRFLOW_VIEWER_PASSWORD AIRFLOW_FERNET_KEY
AIRFLOW_JWT_SECRET AIRFLOW_SECRET_KEY CLICKHOUSE_PASSWORD LAION_LOADER_PASSWORD LAION_SEARCHER_PASSWORD
LAION_DEPLOYER_PASSWORD POSTGRES_PASSWORD REDIS_PASSWORD"

make_secret() {
  case $1 in
    AIRFLOW_FERNET_KEY) head -c 32 /dev/urandom | base64 | tr '+/' '-_' ;;
    *) head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n' ;;
  esac
}

make_file() {
  local file=$1 temporary name s3_password
  s3_password=$(make_secret S3_PASSWORD)
  if [ -e "$file" ]; then
    printf '%s exists and stays as it is. To make new secrets, move it away first.\n' "$file"
    return
  fi
  # Written in full before it gets its name, so that an interrupted run leaves no half file.
  umask 077
  temporary=$(mktemp "$file.XXXXXX")
  # shellcheck disable=SC2064
  trap "rm -f '$temporary'" EXIT
  {
    printf '%s\n' "# Secrets of the Docker Compose stack, made by \`make env\`. Keep this file to yourself." \
      "# Databases take their passwords when they are first started: docs/docker.md says how to change one."
    for name in $secrets; do printf '%s=%s\n' "$name" "$(make_secret "$name")"; done
    printf 'S3_PASSWORD=%s\n' "$s3_password"
    printf '\n%s\n%s\n' "# Where alerts go, an Airflow connection of type apprise; empty: nowhere." \
      "AIRFLOW_CONN_LAION_ALERTS="
    printf '\n%s\n' "# The staging area on the stack's own S3, not on a volume: take away the # of three lines."
    printf '#%s\n' "COMPOSE_PROFILES=s3" "LAION_STAGING_URI=s3://staging/laion" \
      "AIRFLOW_CONN_LAION_S3='{\"conn_type\": \"aws\", \"login\": \"laion\", \"password\": \"$s3_password\",\
 \"extra\": {\"endpoint_url\": \"http://s3:7070\", \"region_name\": \"us-east-1\"}}'"
  } > "$temporary"
  mv -n "$temporary" "$file"
  printf 'Made %s. Log in to Airflow as admin with AIRFLOW_ADMIN_PASSWORD from it.\n' "$file"
}

problems=0
problem() { printf '%s\n' "$1" >&2; problems=$((problems + 1)); }

# The value that the file gives a name; the last one counts, as for Compose.
read_value() { sed -n "s/^$2=//p" "$1" | tail -n 1; }

check_port() {
  local name=$2 port
  port=$(read_value "$1" "$name")
  port=${port:-$3}
  if ! [[ $port =~ ^[0-9]+$ ]] || [ "$port" -lt 1 ] || [ "$port" -gt 65535 ]; then
    problem "$name=$port in $1 is no port."
  elif (: < "/dev/tcp/127.0.0.1/$port") 2> /dev/null; then
    problem "Port $port of 127.0.0.1 is taken. Stop what listens there, or write $name=ANOTHER into $1."
  fi
}

check_file() {
  local file=$1 line number=0 name value
  [ -f "$file" ] || { problem "There is no $file: run \`make env\`."; return; }
  while IFS= read -r line || [ -n "$line" ]; do
    number=$((number + 1))
    [[ -z $line || $line == \#* || $line =~ ^[A-Za-z_][A-Za-z0-9_]*= ]] ||
      problem "Line $number of $file is no NAME=value."
  done < "$file"
  for name in $secrets S3_PASSWORD; do
    value=$(read_value "$file" "$name")
    if [ -z "$value" ]; then
      problem "$file lacks $name. Add it: $name=$(make_secret "$name")"
    elif [ "$name" = AIRFLOW_FERNET_KEY ]; then
      [[ $value =~ ^[A-Za-z0-9_-]{43}=$ ]] ||
        problem "AIRFLOW_FERNET_KEY in $file is no Fernet key: 32 bytes in URL-safe base64."
    elif ! [[ $value =~ ^[A-Za-z0-9]+$ ]]; then
      problem "$name in $file has characters that would need quoting; use letters and digits."
    fi
  done
  value=$(read_value "$file" COMPOSE_PROFILES)
  if [[ ",$value," == *,s3,* && -z $(read_value "$file" AIRFLOW_CONN_LAION_S3) ]]; then
    problem "COMPOSE_PROFILES in $file starts S3, but AIRFLOW_CONN_LAION_S3 does not say how to reach it."
  fi
}

case ${1:-} in
  --check) check_file "${2:-.env}" ;;
  --check-ports)
    check_port "${2:-.env}" AIRFLOW_PORT 8080
    check_port "${2:-.env}" CLICKHOUSE_PORT 8123
    ;;
  *) make_file "${1:-.env}" ;;
esac
[ "$problems" = 0 ]
