"""Pages of other origins: CORS (WHATWG Fetch, section 3.3), for the API and those who are named."""

from __future__ import annotations

from datetime import timedelta

from quart import Quart, Response, request
from quart_cors import route_cors

from quartapp.settings import ANY_ORIGIN, WebSettings

METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE"]
REQUEST_HEADERS = [
    "authorization",
    "content-type",
    "idempotency-key",
    "if-none-match",
    "last-event-id",
]
EXPOSED_HEADERS = [
    "content-disposition",
    "etag",
    "location",
    "ratelimit-limit",
    "ratelimit-remaining",
    "ratelimit-reset",
    "retry-after",
]
MAX_AGE = timedelta(hours=1)


def share(app: Quart, settings: WebSettings) -> None:
    """Let pages of the origins in the settings read the answers of the API, errors and streams
    too. Nothing is added when there are none.

    WebSockets have no CORS: `require_allowed_origin` is what looks there.
    """
    if not settings.cors_origins:
        return

    @route_cors(
        allow_origin=[ANY_ORIGIN] if settings.any_origin else sorted(settings.named_origins),
        allow_credentials=not settings.any_origin,
        allow_methods=METHODS,
        allow_headers=REQUEST_HEADERS,
        expose_headers=EXPOSED_HEADERS,
        max_age=MAX_AGE,
        provide_automatic_options=False,
    )
    async def shared(response: Response) -> Response:
        return response

    # Not by quart_cors.cors: that would also refuse every WebSocket without an Origin.
    @app.after_request
    async def share_answer(response: Response) -> Response:
        return await shared(response) if _is_api(request.path) else response


async def is_preflight() -> bool:
    """Whether a browser only asks what it may ask."""
    return request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers


def _is_api(path: str) -> bool:
    return path.startswith("/api/") or path == "/openapi.json"
