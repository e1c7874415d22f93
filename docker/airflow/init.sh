#!/bin/bash
# Make ready what the other containers need: Airflow's database and passwords, the users of ClickHouse,
# the sample's model. Can be repeated; passwords are taken anew each time.
set -euo pipefail

fail() { printf 'laion-init: %s\n' "$1" >&2; exit 1; }

passwords=$AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE
models=$LAION_MODELS_DIR
# Nothing where staging is on S3.
staging=$(sed -n 's,^file://,,p' <<< "$LAION_STAGING_URI")
for directory in "$(dirname "$passwords")" "$AIRFLOW_HOME/logs" "$models" $staging \
  "$LAION_UDF_SCRIPTS_DIR" "$LAION_UDF_FUNCTIONS_DIR"; do
  [ -d "$directory" ] || mkdir -p "$directory" || fail "$directory cannot be made"
  [ -w "$directory" ] || fail "$directory belongs to user $(stat -c %u "$directory") and cannot be \
written by user $(id -u), as whom this runs. Give its volume to that user: docker run --rm --user 0 \
--volume VOLUME:/volume alpine chown -R $(id -u):0 /volume"
done

airflow db migrate
(
  umask 077
  python3 -c 'import json, os; print(json.dumps({user: os.environ[f"AIRFLOW_{user.upper()}_PASSWORD"]
      for user in ("admin", "operator", "viewer")}))' > "$passwords"
)
built=$(python3 -m laion.sample model)
mkdir -p "$models/$(basename "$built")"
cp -R "$built/." "$models/$(basename "$built")"
# Not where the server has one user only, who may do everything, as the embedded ClickHouse.
if [ -n "${CLICKHOUSE_ADMIN_URL:-}" ]; then
  s3=$([[ $LAION_STAGING_URI != s3://* ]] || echo --s3)
  # shellcheck disable=SC2086
  python3 -m laion.clickhouse.users --database laion $s3 --apply
fi
