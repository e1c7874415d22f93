"""The only part that knows Airflow: parameters, connections, retries, alerts and task bodies."""
