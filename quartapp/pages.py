"""The web pages: static files and nothing else; what they show comes from the API."""

from __future__ import annotations

from pathlib import Path

from quart import Blueprint, Response, send_from_directory
from quart_schema import hide

STATIC = Path(__file__).parent / "static"

blueprint = Blueprint("pages", __name__)


@blueprint.get("/")
@hide
async def get_home() -> Response:
    """Sign in, upload, and the list of sessions."""
    return await _page("index.html")


@blueprint.get("/sessions/<session_id>")
@hide
async def get_session_page(session_id: str) -> Response:
    """One session; the page asks the API, which decides who may see it."""
    return await _page("index.html")


@blueprint.get("/docs")
@hide
async def get_docs() -> Response:
    """The API, readable."""
    return await _page("docs.html")


@blueprint.get("/favicon.ico")
@hide
async def get_favicon() -> Response:
    """Browsers ask for it whatever the page says."""
    return await _page("favicon.svg")


async def _page(name: str) -> Response:
    response = await send_from_directory(STATIC, name)
    response.headers["Cache-Control"] = "no-cache"
    return response
