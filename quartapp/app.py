"""The app factory: every route, limit and header in one place."""

from __future__ import annotations

from datetime import timedelta
from importlib.metadata import version
from typing import Any

from hypercorn.middleware import ProxyFixMiddleware
from quart import Quart, Response, request
from quart_rate_limiter import RateLimit
from quart_schema import Info, QuartSchema, Tag
from quart_schema.openapi import HttpSecurityScheme

from quartapp import pages
from quartapp.api import (
    admin,
    config,
    health,
    patients,
    results,
    roster,
    status,
    stream,
    therapybridge,
    websocket,
)
from quartapp.api.auth import auth_blueprint
from quartapp.api.sessions import sessions_blueprint
from quartapp.api.tickets import tickets_blueprint
from quartapp.api.tokens import tokens_blueprint
from quartapp.auth import Credentials
from quartapp.connection import Connection, LimitedRequest, NoSessions, Socket
from quartapp.cors import share
from quartapp.limits import AddressLimiter
from quartapp.openapi import Provider
from quartapp.problems import Problem, register_problems
from quartapp.services import EXTENSION, Services
from quartapp.uploads import FlowControl
from quartapp.write_deadline import WriteDeadline

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; media-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)

SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}

ANSWERED_WHEN_STOPPING = {"health", "stream", "roster", "therapybridge"}
RETRY_AFTER_RESTART_S = 2

TAGS = ["accounts", "sessions", "status", "results", "administration", "configuration"]


def create_app(services: Services) -> Quart:
    """The app over services that are already running; it starts and stops none itself."""
    settings = services.settings
    app = Quart(__name__, static_folder=None)
    app.secret_key = settings.signing_key()
    app.request_class = LimitedRequest
    app.session_interface = NoSessions()  # type: ignore[assignment]
    app.asgi_http_class = Connection
    app.asgi_websocket_class = Socket
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = True
    app.config["SEND_FILE_MAX_AGE_DEFAULT"] = None  # what is sent says itself for how long
    app.extensions[EXTENSION] = services
    Credentials(app, settings)
    AddressLimiter(app, RateLimit(settings.request_limit, timedelta(minutes=1)))
    QuartSchema(
        app,
        openapi_path="/openapi.json",
        redoc_ui_path=None,
        scalar_ui_path=None,
        swagger_ui_path=None,
        info=Info(title="quartapp", version=version("quartapp")),
        tags=[Tag(name=name) for name in TAGS],
        security_schemes={"bearer": HttpSecurityScheme(scheme="bearer")},
        security=[{"bearer": []}],
        openapi_provider_class=Provider,
        conversion_preference="pydantic",
    )
    app.json.sort_keys = False  # type: ignore[attr-defined]
    register_problems(app)
    share(app, settings)
    for blueprint in (
        auth_blueprint(settings.login_limit),
        tokens_blueprint(settings.login_limit),
        sessions_blueprint(settings.upload_limit),
        tickets_blueprint(settings.ticket_limit),
        status.blueprint,
        stream.blueprint,
        websocket.blueprint,
        therapybridge.blueprint,
        roster.blueprint,
        results.blueprint,
        patients.blueprint,
        config.blueprint,
        admin.blueprint,
        health.blueprint,
        pages.blueprint,
    ):
        app.register_blueprint(blueprint)

    @app.before_request
    async def refuse_when_stopping() -> None:
        # Streams are told in their own way, on which browsers come back; to 503 they would not.
        if services.drain.is_set() and request.blueprint not in ANSWERED_WHEN_STOPPING:
            raise Problem(
                503,
                "restarting",
                "The server is being restarted. Please try again.",
                headers={"Retry-After": str(RETRY_AFTER_RESTART_S), "Connection": "close"},
            )

    @app.after_request
    async def secure(response: Response) -> Response:
        for name, value in SECURITY_HEADERS.items():
            response.headers.setdefault(name, value)
        if request.path.startswith("/api/"):
            response.headers.setdefault("Cache-Control", "no-store")
        return response

    return app


def asgi_app(app: Quart) -> Any:
    """The app as it is served: behind flow control and, where there are some, trusted proxies."""
    settings = app.extensions[EXTENSION].settings
    hops = settings.proxy_hops
    inner: Any = FlowControl(WriteDeadline(app, settings.stream_write_timeout_s))
    return ProxyFixMiddleware(inner, mode="legacy", trusted_hops=hops) if hops else inner
