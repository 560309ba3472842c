"""Who may see which session: its owner, a therapist the owner is assigned to, an admin."""

from __future__ import annotations

from uuid import UUID

from quart import g

from jobs.model import Role
from jobs.sessions import Session, select_sees, select_session
from quartapp.accounts import Viewer
from quartapp.auth import asked, brings_ticket, current_viewer, unauthenticated
from quartapp.problems import Problem
from quartapp.services import services
from quartapp.tickets import delete_ticket, select_ticket


async def sees(viewer: Viewer, owner_id: UUID) -> bool:
    """Whether this viewer may see what that account owns."""
    if viewer.is_admin or viewer.id == owner_id:
        return True
    return viewer.user.role is Role.THERAPIST and await select_sees(
        services().pool, viewer.id, owner_id
    )


async def require_sight(viewer: Viewer, owner_id: UUID) -> None:
    """Raises Problem 403 when this viewer may not see what that account owns."""
    if not await sees(viewer, owner_id):
        raise Problem(403, "forbidden", "This patient is not assigned to you.")


async def viewed_session(session_id: UUID, *, tickets: bool = False) -> Session:
    """The session, for a viewer who may see it. With `tickets`, `?ticket=` of the address counts
    too: for streams alone. Raises Problem 401, 404, 403."""
    viewer = await (stream_viewer(session_id) if tickets else current_viewer())
    session = await select_session(services().pool, session_id)
    if session is None:
        raise Problem(404, "not_found", "There is no such session.")
    if not await sees(viewer, session.owner_id):
        raise Problem(403, "forbidden", "This session belongs to somebody else.")
    return session


async def stream_viewer(session_id: UUID) -> Viewer:
    """Who asks for a stream of this session: the bearer says it alone, else the ticket, which is
    used up, else the cookie. Afterwards it is the current viewer. Raises Problem 401."""
    if brings_ticket() and "viewer" not in g:
        # HEAD only looks.
        redeem = select_ticket if asked().method == "HEAD" else delete_ticket
        viewer = await redeem(services().pool, asked().args["ticket"], session_id)
        if viewer is None:
            raise unauthenticated(
                "ticket_invalid", "This ticket is used up, over, or for another session."
            )
        g.viewer = viewer
    return await current_viewer()


async def require_admin() -> Viewer:
    """The viewer, if an admin. Raises Problem 401 or 403."""
    viewer = await current_viewer()
    if not viewer.is_admin:
        raise Problem(403, "forbidden", "Only an administrator may do this.")
    return viewer
