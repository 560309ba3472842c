"""Settings of the web side, on top of those of the jobs and of the streams."""

from __future__ import annotations

import os
import re
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, Field, SecretStr, field_validator

from jobs.settings import MIB, JobSettings
from quartapp.streaming.settings import StreamSettings

DAY_S = 86_400
SECRET_FILE = "secret-key"  # noqa: S105 - the name of a file
MIN_SECRET_LENGTH = 16

# As a browser writes it (WHATWG HTML, "serialization of an origin"), but for a default port.
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
DEFAULT_PORTS = {"http": ":80", "https": ":443"}
ANY_ORIGIN = "*"


class SettingsError(Exception):
    """The environment asks for something impossible; the message says what to do."""


class WebSettings(StreamSettings, JobSettings):
    """All settings of `quartapp serve`."""

    host: str = Field(
        "",
        validation_alias=AliasChoices("HOST", "host"),
        description="Address to listen on. Default: 127.0.0.1; 0.0.0.0 when `PORT` is set.",
    )
    port: int = Field(
        8000,
        validation_alias=AliasChoices("PORT", "port"),
        ge=0,
        le=65535,
        description="Port to listen on; 0 takes a free one.",
    )
    secret_key: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("SECRET_KEY", "secret_key"),
        description="Signs cookies and tokens. Unset without `DATABASE_URL`: made once and kept in "
        "the data directory.",
    )
    public_url: str = Field(
        "",
        validation_alias=AliasChoices("PUBLIC_URL", "RENDER_EXTERNAL_URL", "public_url"),
        description="Address users see. https makes cookies secure.",
    )
    role: Literal["all", "web"] = Field(
        "all", description="`web`: serve only, leave transcription to `quartapp worker`."
    )
    registration: Literal["open", "closed"] = Field(
        "open", description="Whether anybody may make an account."
    )
    trusted_proxies: int = Field(
        -1,
        ge=-1,
        description="Reverse proxies in front whose `X-Forwarded-*` is believed. "
        "Default: 1 on Render and Heroku, else 0.",
    )
    login_duration_s: int = Field(
        30 * DAY_S, ge=60, description="How long a sign-in lasts, in seconds."
    )
    max_upload_bytes: int = Field(
        500 * MIB, ge=1, description="Largest recording accepted, in bytes."
    )
    upload_idle_timeout_s: float = Field(
        60, gt=0, description="An upload that sends nothing for so long is given up."
    )
    request_limit: int = Field(
        1200, ge=1, description="Requests a minute from one address to one route."
    )
    login_limit: int = Field(
        120, ge=1, description="Sign-ins and registrations a minute from one address."
    )
    upload_limit: int = Field(120, ge=1, description="Uploads a minute from one address.")
    ticket_limit: int = Field(
        60, ge=1, description="Tickets for streams a minute from one address."
    )
    ticket_duration_s: int = Field(
        60, ge=1, le=60, description="How long a ticket opens its stream, in seconds."
    )
    client_poll_interval_s: float = Field(
        3,
        gt=0,
        description="How often the web client asks where no stream comes through, in seconds.",
    )
    client_stream_retry_s: float = Field(
        30, gt=0, description="How often it tries the stream again meanwhile, in seconds."
    )
    cors_origins: str = Field(
        "",
        description="Origins whose pages may use the API with credentials, such as "
        "`https://app.example.org`, separated by commas. `*`: every origin, by token or ticket "
        "alone and never by cookie.",
    )
    probe_slots: int = Field(
        2, ge=1, le=16, description="Uploads examined at the same time by one process."
    )

    @field_validator("public_url")
    @classmethod
    def _web_address(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("an address begins with http:// or https://")
        return value.rstrip("/")

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: str) -> str:
        """As browsers write them, each once."""
        origins = [text.strip().lower() for text in value.split(",") if text.strip()]
        if ANY_ORIGIN in origins and len(origins) > 1:
            raise ValueError(f"{ANY_ORIGIN} stands alone")
        return ",".join(dict.fromkeys(map(_origin, origins)))

    @property
    def any_origin(self) -> bool:
        """Whether pages of every origin may use the API, if they bring a token or a ticket."""
        return self.cors_origins == ANY_ORIGIN

    @property
    def named_origins(self) -> frozenset[str]:
        """The origins that are trusted like our own."""
        if self.any_origin or not self.cors_origins:
            return frozenset()
        return frozenset(self.cors_origins.split(","))

    @property
    def bind_host(self) -> str:
        """The address to listen on."""
        if self.host:
            return self.host
        return "0.0.0.0" if os.environ.get("PORT") else "127.0.0.1"  # noqa: S104 - asked for

    @property
    def secure_cookies(self) -> bool:
        return self.public_url.startswith("https://")

    @property
    def proxy_hops(self) -> int:
        """How many reverse proxies to believe."""
        if self.trusted_proxies >= 0:
            return self.trusted_proxies
        return 1 if os.environ.get("RENDER") or os.environ.get("DYNO") else 0

    @property
    def development(self) -> bool:
        """Nothing is set up: the embedded database, a generated secret, a first account."""
        return self.database_url is None

    def signing_key(self) -> str:
        """The secret. Raises SettingsError, with what to do, when there must be one and is none."""
        if self.secret_key is not None and self.secret_key.get_secret_value():
            key = self.secret_key.get_secret_value()
            if len(key) < MIN_SECRET_LENGTH:
                raise SettingsError(
                    f"SECRET_KEY is too short: at least {MIN_SECRET_LENGTH} characters. {MAKE_KEY}"
                )
            return key
        if not self.development:
            raise SettingsError(f"SECRET_KEY is not set. {MAKE_KEY}")
        return _kept_secret(self.data_dir / SECRET_FILE)


def _origin(text: str) -> str:
    if text == ANY_ORIGIN:
        return text
    if not ORIGIN.fullmatch(text):
        raise ValueError("an origin is scheme://host or scheme://host:port, without a path")
    return text.removesuffix(DEFAULT_PORTS.get(text.partition(":")[0], ""))


MAKE_KEY = "Make one with: python3 -c 'import secrets; print(secrets.token_urlsafe(48))'"


def _kept_secret(path: Path) -> str:
    """The secret in this file, made by whoever comes first; never seen half-written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        descriptor, new = tempfile.mkstemp(prefix=f"{path.name}-", dir=path.parent)  # mode 0600
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(secrets.token_urlsafe(48))
            with suppress(FileExistsError):
                os.link(new, path)
        finally:
            os.unlink(new)
    key = path.read_text(encoding="utf-8").strip()
    if len(key) < MIN_SECRET_LENGTH:
        raise SettingsError(f"{path} holds no secret. Remove it, and a new one is made.")
    return key
