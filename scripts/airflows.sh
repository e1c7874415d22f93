#!/usr/bin/env bash
# Install this package's wheel beside the oldest and the newest Airflow that it allows, each in a fresh
# environment below .state/airflows, as docs/install.md tells: the DAGs must be listed without import
# errors, the plugin loaded, and the tests of the DAGs' form pass. The oldest Airflow comes with the oldest
# packages that pyproject.toml allows. An Airflow that is too old must be told so.
# Needs uv and a network; some minutes the first time. usage: airflows.sh
set -euo pipefail
oldest=3.3.0
too_old=3.2.2
project=$PWD
place=$project/.state/airflows
rm -rf "$place"
mkdir -p "$place"

fail() { printf '%s\n' "$1" >&2; exit 1; }

# From a copy: setuptools leaves files of earlier builds where it builds.
mkdir "$place/source"
tar --create --exclude='*.egg-info' --exclude=__pycache__ include pyproject.toml README.md LICENSE |
  tar --extract --directory "$place/source"
uv build --quiet --wheel --out-dir "$place" "$place/source"
wheel=$(ls "$place"/*.whl)

# make_environment NAME UV_PIP_INSTALL_ARGUMENTS…
make_environment() {
  directory=$place/$1
  export VIRTUAL_ENV=$directory
  export PATH=$directory/bin:$PATH
  printf 'Making an environment with the %s Airflow\n' "$1"
  uv venv --quiet --python 3.11 "$directory"
  uv pip install --quiet "${@:2}"
  uv pip install --quiet --no-deps "$wheel"
  mkdir "$directory/home"
  cp -r dags plugins "$directory/home"
  export AIRFLOW_HOME=$directory/home AIRFLOW__CORE__LOAD_EXAMPLES=False
}

# Away from the checkout, so that the package can only be the wheel's.
in_airflow() { (cd "$AIRFLOW_HOME" && "$@" 2> "$directory/stderr") || { cat "$directory/stderr" >&2; return 1; }; }

check_airflow() {
  printf 'Airflow %s: ' "$(in_airflow airflow version)"
  in_airflow airflow db migrate > "$directory/migrate.log"
  in_airflow airflow dags reserialize > "$directory/reserialize.log"
  errors=$(in_airflow airflow dags list-import-errors --local --output plain) || fail "import errors: $errors"
  dags=$(in_airflow airflow dags list --output plain --columns dag_id | grep -c '^laion_')
  [ "$dags" = 3 ] || fail "$dags DAGs are listed, not 3"
  plugins=$(in_airflow airflow plugins --output plain)
  [[ $plugins == *laion_ui* ]] || fail "the plugin is not loaded"
  file=$(in_airflow python -c 'import laion; print(laion.__file__)')
  [[ $file == "$directory"/* ]] || fail "tested is $file, not the wheel"
  printf 'the wheel has 3 DAGs without import errors and the plugin; '
  AIRFLOW_HOME=$directory/tests python -m pytest --quiet --no-header -p no:cacheprovider \
    tests/dags/test_dag_policy.py tests/dags/test_params.py
}

dependencies=(-r pyproject.toml --extra demo --extra s3 'pytest>=8')
make_environment oldest --resolution lowest-direct "apache-airflow==$oldest" "${dependencies[@]}"
check_airflow
make_environment newest "${dependencies[@]}"
check_airflow

make_environment too-old "apache-airflow==$too_old"
printf 'Airflow %s: ' "$(in_airflow airflow version)"
in_airflow airflow db migrate > "$directory/migrate.log"
in_airflow airflow dags list-import-errors --local --output plain > "$directory/errors" || true
grep -o "AirflowTooOld: this is Airflow $too_old.*" "$directory/errors" | head -n 1 ||
  fail "it is not told that it is too old: $(cat "$directory/errors")"
