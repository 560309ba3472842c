"""For platforms and monitors: alive, able to serve, and figures."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from quart import Blueprint, Response, current_app
from quart_rate_limiter import rate_exempt
from quart_schema import hide

from jobs.database import CONNECT_ERRORS
from jobs.migrate import load_migrations, schema_version
from quartapp.services import services
from quartapp.streaming.metrics import ListenerCollector, TaskCollector

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
@rate_exempt
@hide
async def get_healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@blueprint.get("/readyz")
@hide
async def get_readyz() -> tuple[dict[str, object], int]:
    """Whether the process can serve.

    Its database answers and has this version's schema, and it is not about to stop. `listener` says
    how status events arrive; polling is slower, not broken.
    """
    checks: dict[str, object] = {
        "draining": services().drain.is_set(),
        "listener": services().listener.mode,
    }
    try:
        async with services().pool.acquire(timeout=2) as connection:
            version = await schema_version(connection)
            checks["database"] = "ok"
            checks["migrations"] = "ok" if version >= len(load_migrations()) else "behind"
    except CONNECT_ERRORS:
        checks["database"] = "unreachable"
        checks["migrations"] = "unknown"
    ready = (
        checks["database"] == "ok"
        and checks["migrations"] == "ok"
        and not services().drain.is_set()
    )
    return {"status": "ready" if ready else "not ready", **checks}, 200 if ready else 503


@blueprint.get("/metrics")
@hide
async def get_metrics() -> Response:
    """Prometheus text format."""
    of_this_process = CollectorRegistry()
    of_this_process.register(ListenerCollector(services().listener))
    of_this_process.register(TaskCollector())
    figures = generate_latest() + generate_latest(of_this_process)
    return current_app.response_class(figures, content_type=CONTENT_TYPE_LATEST)
