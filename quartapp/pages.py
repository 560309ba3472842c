"""The web pages: static files and nothing else; what they show comes from the API."""

from __future__ import annotations

from pathlib import Path

from quart import Blueprint, Response, has_request_context, request, send_from_directory
from quart_schema import hide
from werkzeug.exceptions import NotFound

from quartapp.problems import Problem, http_problem, problem_response

STATIC = Path(__file__).parent / "static"

# Their names are made from their content, so whoever has one need never ask again.
ASSETS = "assets/"
FOR_EVER = "public, max-age=31536000, immutable"
ASK_FIRST = "no-cache"

# What the build puts beside an asset; the first that a browser takes is sent.
ENCODINGS = {"br": ".br", "gzip": ".gz"}

# Addresses of the one page, which shows at each what belongs there.
PAGES = (
    "/",
    "/sessions/<session_id>",
    "/account",
    "/patients",
    "/patients/<patient_id>",
    "/sign-in",
    "/register",
)

blueprint = Blueprint("pages", __name__)


@hide
async def get_page(**_: str) -> Response:
    """The page; it asks the API, which decides who may see what."""
    return await _page("index.html")


for address in PAGES:
    blueprint.add_url_rule(address, view_func=get_page, methods=["GET"])


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


@blueprint.get("/static/<path:filename>")
@hide
async def get_static(filename: str) -> Response:
    """A file of the pages. Assets may be kept for ever, and are there compressed as well."""
    if not filename.startswith(ASSETS):
        return await _page(filename)
    encoding = _encoding(filename)
    answer = await send_from_directory(
        STATIC, filename + ENCODINGS.get(encoding, ""), attachment_filename=Path(filename).name
    )
    if encoding:
        answer.headers["Content-Encoding"] = encoding
    answer.headers["Vary"] = "Accept-Encoding"
    answer.headers["Cache-Control"] = FOR_EVER
    return answer


@blueprint.app_errorhandler(NotFound)
async def no_such_page(error: NotFound) -> Response:
    """For a person the page, which says so in its own words; for a program a problem document."""
    if not _is_for_a_person():
        return http_problem(error)
    page = await _page("index.html", conditional=False)
    page.status_code = 404
    page.headers["Cache-Control"] = "no-store"
    return page


def _is_for_a_person() -> bool:
    """Browsers ask for HTML by its name where they go to an address, and nowhere else."""
    if not has_request_context():  # the handshake of a WebSocket
        return False
    wants_html = any(kind == "text/html" and q > 0 for kind, q in request.accept_mimetypes)
    goes_there = request.method in {"GET", "HEAD"}
    return goes_there and wants_html and not request.path.startswith(("/api/", "/static/"))


def _encoding(filename: str) -> str:
    """The best encoding that the browser takes and the file is there in; none: as it is."""
    accepted = request.accept_encodings
    for encoding, suffix in ENCODINGS.items():
        if accepted.quality(encoding) > 0 and (STATIC / f"{filename}{suffix}").is_file():
            return encoding
    return ""


async def _page(name: str, *, conditional: bool = True) -> Response:
    if not (STATIC / "index.html").is_file():
        return problem_response(
            Problem(404, "not_built", "The web pages are not built. scripts/build_web.py does it.")
        )
    response = await send_from_directory(STATIC, name, conditional=conditional)
    response.headers["Cache-Control"] = ASK_FIRST
    return response
