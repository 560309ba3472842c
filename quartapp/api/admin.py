"""Administration: accounts and who cares for whom."""

from __future__ import annotations

from uuid import UUID

from quart import Blueprint, Response, current_app
from quart_schema import document_response, tag, validate_querystring, validate_response

from jobs.model import Role
from quartapp.access import require_admin
from quartapp.accounts import (
    delete_assignment,
    insert_assignment,
    select_assignments,
    select_user,
    select_users,
)
from quartapp.api.account_bodies import (
    Assignment,
    AssignmentList,
    UserBody,
    UserList,
    UserQuery,
)
from quartapp.api.bodies import ProblemBody
from quartapp.openapi import answers
from quartapp.problems import Problem
from quartapp.services import services

blueprint = Blueprint("admin", __name__, url_prefix="/api/v1/admin")


@blueprint.get("/users")
@tag(["administration"])
@validate_querystring(UserQuery)
@validate_response(UserList)
@document_response(ProblemBody, 403)
async def get_users(query_args: UserQuery) -> UserList:
    """All accounts, by address."""
    await require_admin()
    found = await select_users(
        services().pool, after=query_args.cursor or "", limit=query_args.limit + 1
    )
    page = found[: query_args.limit]
    return UserList(
        users=[UserBody.of(user) for user in page],
        next_cursor=page[-1].email if len(found) > len(page) else None,
    )


@blueprint.get("/assignments")
@tag(["administration"])
@validate_response(AssignmentList)
@document_response(ProblemBody, 403)
async def get_assignments() -> AssignmentList:
    """Which patients are assigned to which therapists."""
    await require_admin()
    pairs = await select_assignments(services().pool)
    return AssignmentList(
        assignments=[Assignment(therapist_id=one, patient_id=other) for one, other in pairs]
    )


@blueprint.put("/assignments/<uuid:therapist_id>/<uuid:patient_id>")
@tag(["administration"])
@document_response(ProblemBody, 403)
@document_response(ProblemBody, 404)
@document_response(ProblemBody, 409)
@answers(204, "Done")
async def put_assignment(therapist_id: UUID, patient_id: UUID) -> Response:
    """Let a therapist see a patient's sessions."""
    await require_admin()
    therapist = await select_user(services().pool, therapist_id)
    patient = await select_user(services().pool, patient_id)
    if therapist is None or patient is None:
        raise Problem(404, "not_found", "There is no such account.")
    if therapist.role is not Role.THERAPIST or patient.role is not Role.PATIENT:
        raise Problem(409, "wrong_role", "A patient is assigned to a therapist.")
    await insert_assignment(services().pool, therapist_id, patient_id)
    return current_app.response_class(b"", 204)


@blueprint.delete("/assignments/<uuid:therapist_id>/<uuid:patient_id>")
@tag(["administration"])
@document_response(ProblemBody, 403)
@answers(204, "Done")
async def remove_assignment(therapist_id: UUID, patient_id: UUID) -> Response:
    """Take the sight of a patient's sessions back."""
    await require_admin()
    await delete_assignment(services().pool, therapist_id, patient_id)
    return current_app.response_class(b"", 204)
