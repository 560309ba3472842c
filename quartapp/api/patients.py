"""Patients, as those who care for them see them."""

from __future__ import annotations

from quart import Blueprint
from quart_schema import document_response, tag, validate_querystring, validate_response

from jobs.model import Role
from quartapp.accounts import select_patients
from quartapp.api.account_bodies import PatientBody, PatientList, UserQuery
from quartapp.api.bodies import ProblemBody
from quartapp.auth import current_viewer
from quartapp.problems import Problem
from quartapp.services import services

blueprint = Blueprint("patients", __name__, url_prefix="/api/v1/patients")


@blueprint.get("")
@tag(["accounts"])
@validate_querystring(UserQuery)
@validate_response(PatientList)
@document_response(ProblemBody, 403)
async def get_patients(query_args: UserQuery) -> PatientList:
    """The patients assigned to the caller, by address; to an administrator all patients."""
    viewer = await current_viewer()
    if viewer.user.role is Role.PATIENT:
        raise Problem(403, "forbidden", "Only a therapist or an administrator may do this.")
    found = await select_patients(
        services().pool,
        therapist_id=None if viewer.is_admin else viewer.id,
        after=query_args.cursor or "",
        limit=query_args.limit + 1,
    )
    page = found[: query_args.limit]
    return PatientList(
        patients=[PatientBody.of(patient) for patient in page],
        next_cursor=page[-1].email if len(found) > len(page) else None,
    )
