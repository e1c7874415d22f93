#!/bin/bash
# Bring Airflow's database up to date and write the password of its user `admin`.
set -euo pipefail

airflow db migrate
umask 077
python3 -c 'import json, os; print(json.dumps({"admin": os.environ["AIRFLOW_ADMIN_PASSWORD"]}))' \
  > "$AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"
