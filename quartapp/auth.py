"""Who makes a request: the quart-auth cookie, or a bearer token. With both the bearer decides.

Either holds nothing but the id of a sign-in, signed. The sign-in itself is a row that logout
revokes, so a stolen token dies with it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit
from uuid import UUID

from itsdangerous import BadData, BadSignature
from itsdangerous.encoding import base64_decode, base64_encode
from quart import Quart, current_app, g, has_websocket_context, request, websocket
from quart.wrappers.base import BaseRequestWebsocket
from quart_auth import Action, AuthUser, QuartAuth
from quart_auth.extension import _AuthSerializer

from jobs.database import connection_within
from quartapp.accounts import Viewer, select_viewer
from quartapp.problems import Problem
from quartapp.services import services
from quartapp.settings import DAY_S, WebSettings
from quartapp.tokens import MAX_DURATION_DAYS, update_token_used

COOKIE_NAME = "quartapp"
EXTENSION = "quartapp-auth"
Handler = TypeVar("Handler", bound=Callable[..., Awaitable[Any]])

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class CanonicalSerializer(_AuthSerializer):
    """Refuses a signature written another way. The last letter of unpadded base64 has bits that
    carry nothing, so several texts would otherwise pass for one signature."""

    def loads(self, s: str | bytes, *args: Any, **kwargs: Any) -> Any:
        text = s.decode("ascii", "replace") if isinstance(s, bytes) else s
        signature = text.rpartition(".")[2]
        try:
            canonical = base64_encode(base64_decode(signature)).decode("ascii")
        except (BadData, ValueError) as error:
            raise BadSignature("signature is not base64") from error
        if canonical != signature:
            raise BadSignature("signature is not canonical")
        return super().loads(s, *args, **kwargs)


class Credentials:
    """The two ways to bring a sign-in, over one signing key."""

    def __init__(self, app: Quart, settings: WebSettings) -> None:
        self.cookie = QuartAuth(
            app,
            cookie_name=COOKIE_NAME,
            cookie_secure=settings.secure_cookies,
            cookie_samesite="Lax",
            duration=settings.login_duration_s,
            serializer_class=CanonicalSerializer,
        )
        self.bearer = QuartAuth(
            app,
            mode="bearer",
            singleton=False,
            attribute_name="_quartapp_bearer",
            cookie_name="quartapp-bearer",
            salt="quartapp bearer",
            # The row decides, sooner; this is as long as any of them may.
            duration=max(settings.login_duration_s, MAX_DURATION_DAYS * DAY_S),
            serializer_class=CanonicalSerializer,
        )
        app.extensions[EXTENSION] = self

    def sign_in(self, login_id: UUID) -> str:
        """Set the cookie on the answer to this request; returns the bearer token."""
        self.cookie.login_user(AuthUser(str(login_id), Action.WRITE_PERMANENT))
        return self.bearer_token(login_id)

    def bearer_token(self, login_id: UUID) -> str:
        """The text by which a program brings a sign-in."""
        return self.bearer.dump_token(str(login_id))

    def sign_out(self) -> None:
        """Take the cookie back with the answer to this request."""
        self.cookie.logout_user()

    def login_id(self) -> UUID | None:
        """The sign-in a request brings; a bearer, even a bad one, hides the cookie."""
        raw = self.bearer.load_bearer() if brings_bearer() else self.cookie.load_cookie()
        try:
            return None if raw is None else UUID(raw)
        except ValueError:
            return None


def credentials() -> Credentials:
    return cast(Credentials, current_app.extensions[EXTENSION])


def asked() -> BaseRequestWebsocket:
    """The request, or the handshake of the WebSocket."""
    return websocket if has_websocket_context() else request


def brings_bearer() -> bool:
    """Other schemes are not ours: a proxy in front may have used them."""
    return asked().headers.get("Authorization", "")[:7].lower().strip() == "bearer"


def brings_ticket() -> bool:
    """Whether the address names one. A bearer hides it, and it hides the cookie."""
    return "ticket" in asked().args and not brings_bearer()


async def current_viewer() -> Viewer:
    """Who asks. Raises Problem 401, or 403 for a state-changing call by cookie from elsewhere."""
    if "viewer" not in g:
        login_id = credentials().login_id()
        viewer = await _select_viewer_in_time(login_id) if login_id else None
        if viewer is None:
            raise unauthenticated()
        require_same_origin()
        g.viewer = viewer
    return cast(Viewer, g.viewer)


def signed_in(handler: Handler) -> Handler:
    """A route that asks who is there before it looks at what was sent."""

    @wraps(handler)
    async def asking(*args: Any, **kwargs: Any) -> Any:
        await current_viewer()
        return await handler(*args, **kwargs)

    return cast(Handler, asking)


async def _select_viewer_in_time(login_id: UUID) -> Viewer | None:
    """The first thing that nearly every request asks of the database; so a database that takes
    what it is sent and does not answer holds up none for long."""
    timeout_s = services().settings.database_timeout_s
    async with connection_within(services().pool, timeout_s) as connection:
        viewer = await select_viewer(connection, login_id)
        if viewer is not None and viewer.use_is_news:
            await update_token_used(connection, login_id)
        return viewer


def unauthenticated(code: str = "unauthenticated", detail: str = "Sign in first.") -> Problem:
    return Problem(401, code, detail, headers={"WWW-Authenticate": 'Bearer realm="quartapp"'})


def require_same_origin() -> None:
    """A cookie alone proves nothing about who sent the request: the browser must say that the page
    was ours (Fetch Metadata's `Sec-Fetch-Site`, or the `Origin` of RFC 6454), or one of an origin
    that the operator has named."""
    if asked().method in SAFE_METHODS or brings_bearer():
        return
    if request.headers.get("Sec-Fetch-Site") == "same-origin":
        return
    if _is_trusted_origin(request.headers.get("Origin", "")):
        return
    raise Problem(
        403,
        "csrf",
        "A change made with the cookie must come from this site's own pages "
        "(send Origin, or use a bearer token).",
    )


def refuse_foreign_origin() -> None:
    """For sign-in itself, which needs no credentials: a page of another site may not do it."""
    origin = request.headers.get("Origin")
    if origin in services().settings.named_origins:
        return
    near = request.headers.get("Sec-Fetch-Site", "same-origin") in {"same-origin", "none"}
    if near and (origin is None or _is_own_origin(origin)):
        return
    raise Problem(403, "csrf", "Signing in must come from this site's own pages.")


def require_allowed_origin() -> None:
    """For WebSockets, which have no CORS: raises Problem 403 for a page of another site.

    Where pages of any origin are allowed, it is by token or ticket: the cookie comes unasked.
    """
    origin = websocket.headers.get("Origin")
    if origin is None or _is_trusted_origin(origin):
        return
    if services().settings.any_origin and (brings_bearer() or brings_ticket()):
        return
    raise Problem(403, "origin", "A WebSocket must be opened from this site's own pages.")


def _is_trusted_origin(origin: str) -> bool:
    return _is_own_origin(origin) or origin in services().settings.named_origins


def _is_own_origin(origin: str) -> bool:
    try:
        parts = urlsplit(origin)
    except ValueError:  # such as "http://["
        return False
    if not parts.scheme or not parts.netloc:
        return False
    public = services().settings.public_url
    return origin == public or parts.netloc == asked().host
