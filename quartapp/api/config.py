"""What the web client must know of this server before anybody has signed in."""

from __future__ import annotations

from importlib.metadata import version
from typing import Literal

from pydantic import BaseModel, Field
from quart import Blueprint
from quart_schema import tag, validate_response

from quartapp.services import services

blueprint = Blueprint("config", __name__, url_prefix="/api/v1/config")


class ConfigBody(BaseModel):
    version: str
    registration: Literal["open", "closed"]
    max_upload_bytes: int
    poll_interval_s: float = Field(description="How often to ask where no stream comes through.")
    stream_retry_s: float = Field(description="How often to try the stream again meanwhile.")


@blueprint.get("")
@tag(["configuration"])
@validate_response(ConfigBody)
async def get_config() -> ConfigBody:
    """Settings of this server that concern its clients; needs no sign-in."""
    settings = services().settings
    return ConfigBody(
        version=version("quartapp"),
        registration=settings.registration,
        max_upload_bytes=settings.max_upload_bytes,
        poll_interval_s=settings.client_poll_interval_s,
        stream_retry_s=settings.client_stream_retry_s,
    )
