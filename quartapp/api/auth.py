"""Accounts: register, login, logout, me."""

from __future__ import annotations

from datetime import timedelta

from quart import Blueprint, Response, current_app
from quart_rate_limiter import RateLimit, rate_limit
from quart_schema import document_response, tag, validate_request, validate_response

from jobs.model import Role
from quartapp.accounts import (
    User,
    insert_login,
    insert_user,
    select_credentials,
    update_login_revoked,
    update_password_hash,
)
from quartapp.api.account_bodies import Login, Registration, SignedIn, UserBody
from quartapp.api.bodies import ProblemBody
from quartapp.auth import credentials, current_viewer, refuse_foreign_origin
from quartapp.openapi import answers
from quartapp.passwords import hash_password, needs_rehash, verify_password
from quartapp.problems import Problem
from quartapp.services import services


def auth_blueprint(logins_per_minute: int) -> Blueprint:
    """The routes, with their limit on guessing."""
    blueprint = Blueprint("auth", __name__, url_prefix="/api/v1/auth")
    limited = rate_limit(limits=[RateLimit(logins_per_minute, timedelta(minutes=1))])

    @blueprint.post("/register")
    @limited
    @tag(["accounts"])
    @validate_request(Registration)
    @validate_response(SignedIn, 201)
    @document_response(ProblemBody, 403)
    @document_response(ProblemBody, 409)
    async def post_register(data: Registration) -> tuple[SignedIn, int]:
        """Make an account of the role `patient` and sign it in."""
        refuse_foreign_origin()
        if services().settings.registration == "closed":
            raise Problem(403, "registration_closed", "Accounts are made by an administrator here.")
        user = await insert_user(
            services().pool,
            data.email,
            await hash_password(data.password.get_secret_value()),
            Role.PATIENT,
        )
        if user is None:
            raise Problem(409, "email_taken", "There is an account with this address already.")
        return await _signed_in(user), 201

    @blueprint.post("/login")
    @limited
    @tag(["accounts"])
    @validate_request(Login)
    @validate_response(SignedIn)
    @document_response(ProblemBody, 401)
    async def post_login(data: Login) -> SignedIn:
        """Sign in: sets the cookie and returns a bearer token for the same sign-in."""
        refuse_foreign_origin()
        found = await select_credentials(services().pool, data.email)
        if (
            not await verify_password(data.password.get_secret_value(), found[1] if found else None)
            or not found
        ):
            raise Problem(401, "wrong_credentials", "The address or the password is wrong.")
        user, stored = found
        if needs_rehash(stored):
            await update_password_hash(
                services().pool, user.id, await hash_password(data.password.get_secret_value())
            )
        return await _signed_in(user)

    @blueprint.post("/logout")
    @tag(["accounts"])
    @document_response(ProblemBody, 401)
    @answers(204, "Done")
    async def post_logout() -> Response:
        """End the sign-in: its cookie and its bearer token are worth nothing afterwards."""
        viewer = await current_viewer()
        await update_login_revoked(services().pool, viewer.login_id)
        credentials().sign_out()
        return current_app.response_class(b"", 204)

    @blueprint.get("/me")
    @tag(["accounts"])
    @validate_response(UserBody)
    @document_response(ProblemBody, 401)
    async def get_me() -> UserBody:
        """The account of the caller."""
        viewer = await current_viewer()
        return UserBody.of(viewer.user)

    return blueprint


async def _signed_in(user: User) -> SignedIn:
    login_id = await insert_login(services().pool, user.id, services().settings.login_duration_s)
    return SignedIn(token=credentials().sign_in(login_id), user=UserBody.of(user))
