#!/usr/bin/env bash
# Run the tests of the DAGs' form with the oldest and the newest Airflow that this package allows, each in
# an environment of its own below .state/airflows. Needs uv and a network; some minutes the first time.
# usage: airflows.sh [VERSION…]
set -euo pipefail
versions=("$@")
[ ${#versions[@]} -gt 0 ] || versions=(3.3.0 "$(sed -n 's/^apache-airflow==\([^ ]*\).*/\1/p' requirements.lock)")

for version in "${versions[@]}"; do
  directory=.state/airflows/$version
  if [ ! -e "$directory/.complete" ]; then
    printf 'Making an environment with Airflow %s\n' "$version"
    uv venv --quiet --clear "$directory"
    VIRTUAL_ENV=$directory uv pip install --quiet "apache-airflow==$version" -e '.[demo,s3]' pytest
    touch "$directory/.complete"
  fi
  printf 'Airflow %s: ' "$version"
  AIRFLOW_HOME=$PWD/$directory/home "$directory/bin/python" -m pytest --quiet --no-header \
    -p no:cacheprovider tests/dags/test_dag_policy.py tests/dags/test_params.py
done
