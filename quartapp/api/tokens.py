"""Tokens: made, listed and revoked by the person they are for."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from quart import Blueprint, Response, current_app
from quart_rate_limiter import RateLimit, rate_limit
from quart_schema import document_response, tag, validate_request, validate_response

from quartapp.api.account_bodies import NewToken, TokenBody, TokenList, TokenMade
from quartapp.api.bodies import ProblemBody
from quartapp.auth import credentials, current_viewer, signed_in
from quartapp.openapi import answers
from quartapp.problems import Problem
from quartapp.services import services
from quartapp.tokens import MAX_TOKENS, insert_token, select_tokens, update_token_revoked


def tokens_blueprint(tokens_per_minute: int) -> Blueprint:
    """The routes, with their limit on new ones."""
    blueprint = Blueprint("tokens", __name__, url_prefix="/api/v1/auth/tokens")

    @blueprint.get("")
    @tag(["accounts"])
    @validate_response(TokenList)
    @document_response(ProblemBody, 401)
    async def get_tokens() -> TokenList:
        """The caller's tokens that are good, newest first; never their texts."""
        viewer = await current_viewer()
        tokens = await select_tokens(services().pool, viewer.id)
        return TokenList(tokens=[TokenBody.of(token) for token in tokens])

    @blueprint.post("")
    @rate_limit(limits=[RateLimit(tokens_per_minute, timedelta(minutes=1))])
    @tag(["accounts"])
    @signed_in
    @validate_request(NewToken)
    @validate_response(TokenMade, 201)
    @document_response(ProblemBody, 401)
    @document_response(ProblemBody, 403)
    @document_response(ProblemBody, 409)
    @document_response(ProblemBody, 422)
    async def post_token(data: NewToken) -> tuple[TokenMade, int]:
        """Make a token for a program to act as the caller.

        `token` is shown this once, and is good until it expires or is revoked. 409
        `too_many_tokens` when there are twenty already.
        """
        viewer = await current_viewer()
        token = await insert_token(services().pool, viewer.id, data.name, data.expires_in_days)
        if token is None:
            raise Problem(
                409,
                "too_many_tokens",
                f"You have {MAX_TOKENS} tokens, and no more are possible. Revoke one first.",
            )
        text = credentials().bearer_token(token.id)
        return TokenMade(**TokenBody.of(token).model_dump(), token=text), 201

    @blueprint.delete("/<uuid:token_id>")
    @tag(["accounts"])
    @document_response(ProblemBody, 401)
    @document_response(ProblemBody, 403)
    @document_response(ProblemBody, 404)
    @answers(204, "Done")
    async def delete_token(token_id: UUID) -> Response:
        """Revoke a token of the caller.

        It is refused from now on, and streams opened with it end within seconds. 404 for one that
        is not the caller's, or is over.
        """
        viewer = await current_viewer()
        if not await update_token_revoked(services().pool, viewer.id, token_id):
            raise Problem(404, "not_found", "You have no such token.")
        return current_app.response_class(b"", 204)

    return blueprint
