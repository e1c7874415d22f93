"""The only part that knows Airflow: parameters, connections, retries, alerts and task bodies."""

from importlib.metadata import version

from laion.errors import AirflowTooOld

OLDEST_AIRFLOW = (3, 3)


def check_airflow(found: str) -> None:
    """Raise AirflowTooOld, which Airflow then shows as the DAG's import error."""
    if tuple(int(part) for part in found.split(".")[:2]) < OLDEST_AIRFLOW:
        needed = ".".join(map(str, OLDEST_AIRFLOW))
        raise AirflowTooOld(
            f"this is Airflow {found}; laion-clickhouse needs {needed} or newer, for retry "
            "policies, pages and deadlines. Upgrade Airflow, or remove these DAGs and the plugin"
        )


check_airflow(version("apache-airflow-core"))
