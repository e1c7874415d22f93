"""The pages *Shards* and *Search* in Airflow's navigation."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from airflow.plugins_manager import AirflowPlugin


def _view(page: str) -> dict[str, Any]:
    return {
        "name": page.capitalize(),
        "href": f"laion/{page}",
        "url_route": f"laion-{page}",
        "icon": f"laion/static/{page}.svg",
        "icon_dark_mode": f"laion/static/{page}-dark.svg",
        "destination": "nav",
        "nav_top_level": True,
    }


class LaionUi(AirflowPlugin):
    name = "laion_ui"

    external_views = [_view("shards"), _view("search")]  # noqa: RUF012

    @cached_property
    def fastapi_apps(self) -> list[dict[str, Any]]:  # type: ignore[override]
        # Only the API server asks. Every worker and scheduler imports this file, too, and shall
        # not load a web application for nothing.
        from laion.orchestration.pages import create_pages

        return [{"app": create_pages(), "url_prefix": "/laion", "name": "LAION"}]
