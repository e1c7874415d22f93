"""Two pages for Airflow's navigation: the board of shards, and search.

The application knows nothing of Airflow: who may do what, which runs are active and where
ClickHouse is are handed to `app.create_app` (`app.Backend`); `plugins/laion_ui.py` does that.
"""
