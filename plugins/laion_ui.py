"""The pages *Shards* and *Search* in Airflow's navigation."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from airflow.plugins_manager import AirflowPlugin


class LaionUi(AirflowPlugin):
    name = "laion_ui"

    external_views = [  # noqa: RUF012
        {
            "name": "Shards",
            "href": "laion/shards",
            "url_route": "laion-shards",
            "destination": "nav",
            "icon": "laion/static/shards.svg",
            "icon_dark_mode": "laion/static/shards-dark.svg",
        },
    ]

    @cached_property
    def fastapi_apps(self) -> list[dict[str, Any]]:  # type: ignore[override]
        # Only the API server asks. Every worker and scheduler imports this file, too, and shall
        # not load a web application for nothing.
        from laion.orchestration.pages import create_pages

        return [{"app": create_pages(), "url_prefix": "/laion", "name": "LAION"}]
