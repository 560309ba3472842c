"""Settings of the jobs side, read once from the environment and handed down as arguments."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit
from uuid import uuid4

from croniter import croniter
from pydantic import AliasChoices, AliasGenerator, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

SECONDS = 1.0
MINUTES = 60 * SECONDS
HOURS = 60 * MINUTES
DAYS = 24 * HOURS
YEARS = 365 * DAYS
KIB = 1024
MIB = 1024 * KIB

LONGEST_RETENTION_S = 100 * YEARS  # times much longer are more than PostgreSQL can reckon with

ENVIRONMENT_PREFIX = "QUARTAPP_"


def environment_name(field: str) -> str:
    """`QUARTAPP_JOB_SLOTS` for `job_slots`."""
    return ENVIRONMENT_PREFIX + field.upper()


class JobSettings(BaseSettings):
    """Everything `jobs` can be told. Names of the platform (`DATABASE_URL`) stand as they are;
    all others carry the prefix `QUARTAPP_`. An empty value is none. Times are seconds."""

    model_config = SettingsConfigDict(
        # Instead of a prefix, so that an error names the variable and not the field.
        alias_generator=AliasGenerator(validation_alias=environment_name),
        allow_inf_nan=False,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        populate_by_name=True,
    )

    database_url: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("DATABASE_URL"),
        description="PostgreSQL. Unset: an embedded server under the data directory.",
    )
    database_url_direct: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("DATABASE_URL_DIRECT"),
        description="PostgreSQL for LISTEN, not through a transaction pooler. "
        "Default: `DATABASE_URL`.",
    )
    data_dir: Path = Field(
        Path("./.data"),
        description="Where the embedded database, the generated secret and the password of the "
        "first account are kept.",
    )
    engine: Literal["auto", "pocketsphinx", "faster-whisper", "openai"] = Field(
        "auto",
        description="Speech engine; `auto` takes the best one that is installed, has its model "
        "here, and sends recordings nowhere.",
    )
    faster_whisper_model: str = Field(
        "small",
        min_length=1,
        description="Model of faster-whisper: a name (`tiny`, `base`, `small`, `medium`, "
        "`large-v3`, …), a repository of its hub (`owner/name`), or a local directory.",
    )
    faster_whisper_compute_type: Literal[
        "int8",
        "int8_float32",
        "int8_float16",
        "int8_bfloat16",
        "int16",
        "float16",
        "bfloat16",
        "float32",
        "auto",
    ] = Field("int8", description="Numbers that faster-whisper reckons with.")
    faster_whisper_threads: int = Field(
        0,
        ge=0,
        le=256,
        description="Threads of one recogniser with faster-whisper; 0: the processor's cores "
        "divided by `QUARTAPP_JOB_SLOTS`.",
    )
    openai_base_url: str = Field(
        "https://api.openai.com/v1",
        description="Service that the engine `openai` sends recordings to: whatever answers "
        "`POST /audio/transcriptions` below this address as OpenAI does.",
    )
    openai_api_key: SecretStr | None = Field(
        None, description="Key for that service; one of your own may need none."
    )
    openai_model: str = Field("whisper-1", min_length=1, description="Model to ask it for.")
    openai_timeout_s: float = Field(
        1 * MINUTES, gt=0, description="Longest wait for one answer of that service."
    )
    openai_chunk_timeout_s: float = Field(
        5 * MINUTES,
        gt=0,
        description="Longest time in which it is asked for the same piece again and again, while "
        "it cannot be reached or has no time.",
    )
    audio_store: str = Field(
        "postgres",
        description="Where recordings are kept: `postgres`, or a URL `file:///…`, `s3://…`, "
        "`gs://…`, `az://…`.",
    )
    job_slots: int = Field(
        1, ge=0, le=32, description="Recordings transcribed at the same time by one process."
    )
    job_timeout_s: int = Field(
        int(24 * HOURS), ge=60, description="Longest one attempt may take in all."
    )
    lease_s: float = Field(
        20 * SECONDS,
        ge=1,
        description="A worker not heard of for so long has lost its recording to another.",
    )
    recovery_interval_s: float = Field(
        5 * SECONDS, gt=0, description="How often lost leases and lost jobs are looked for."
    )
    max_attempts: int = Field(
        3, ge=1, description="Failed attempts without new text before a session fails."
    )
    max_interruptions: int = Field(
        20, ge=1, description="Lost workers without new text before a session fails."
    )
    retry_delay_s: float = Field(
        5 * SECONDS,
        ge=0,
        description="Wait before the second attempt; doubles each time, up to 10 min.",
    )
    short_audio_s: float = Field(
        0.0,
        ge=0,
        description="Recordings no longer than this are begun before longer ones; 0: no such rule.",
    )
    status_interval_s: float = Field(
        1 * SECONDS,
        ge=0,
        description="Least time between progress events of a session; milestones always pass.",
    )
    quiet_s: float = Field(
        15 * SECONDS, ge=1, description="Progress that stands still for so long is said to."
    )
    stall_timeout_s: float = Field(
        60 * SECONDS, ge=1, description="A recogniser silent for so long is killed and restarted."
    )
    stall_factor: float = Field(
        10.0,
        gt=0,
        description="A recogniser that has no result of a piece of sound after this many times its "
        "length, and `QUARTAPP_STALL_TIMEOUT_S`, is killed and restarted.",
    )
    recogniser_start_timeout_s: float = Field(
        2 * MINUTES, ge=1, description="Longest a recogniser may take to load its model."
    )
    recogniser_memory_bytes: int = Field(
        2048 * MIB, ge=256 * MIB, description="Private memory one recogniser may take."
    )
    recogniser_idle_s: float = Field(
        5 * MINUTES, ge=0, description="An unused recogniser is ended after this time."
    )
    database_pool_size: int = Field(
        4, ge=2, le=100, description="Most connections of the query pool of one process."
    )
    database_timeout_s: float = Field(
        10 * SECONDS, gt=0, description="Longest wait for a connection to the database."
    )
    orphan_audio_s: float = Field(
        1 * HOURS, ge=60, description="Uploads that became no session are deleted after this time."
    )
    audio_retention: float = Field(
        30 * DAYS,
        ge=0,
        le=LONGEST_RETENTION_S,
        description="How long the recording of a completed session is kept, in seconds; 0: it is "
        "deleted right after success.",
    )
    unfinished_audio_retention_s: float = Field(
        90 * DAYS,
        ge=1 * HOURS,
        le=LONGEST_RETENTION_S,
        description="How long the recording of a failed or cancelled session is kept; until then "
        "it can be retried.",
    )
    status_retention_s: float = Field(
        90 * DAYS,
        ge=1 * DAYS,
        le=LONGEST_RETENTION_S,
        description="How long after its end the status events of a session are kept; its last one "
        "always stays.",
    )
    session_retention_s: float | None = Field(
        None,
        ge=1 * DAYS,
        le=LONGEST_RETENTION_S,
        description="How long after its end a session is kept at all, with its transcript. Unset: "
        "for ever.",
    )
    login_retention_s: float = Field(
        7 * DAYS,
        ge=0,
        le=LONGEST_RETENTION_S,
        description="How long a sign-in that expired or was revoked is kept.",
    )
    idempotency_retention_s: float = Field(
        1 * DAYS,
        ge=1 * HOURS,
        le=LONGEST_RETENTION_S,
        description="For how long an `Idempotency-Key` brings the first answer again.",
    )
    run_retention_s: float = Field(
        1 * YEARS,
        ge=1 * DAYS,
        le=LONGEST_RETENTION_S,
        description="How long it is kept what transcriptions took, the ground for estimates.",
    )
    upkeep_cron: str = Field(
        "*/10 * * * *",
        description="When what has been kept for long enough is deleted: a cron expression, in "
        "UTC; a sixth field is seconds.",
    )
    upkeep_poll_s: int = Field(
        30, ge=1, le=3600, description="How often a worker looks whether it is time for that."
    )

    @field_validator("audio_store")
    @classmethod
    def _known_store(cls, value: str) -> str:
        parts = urlsplit(value)
        if value == "postgres" or (parts.scheme == "file" and parts.path.startswith("/")):
            return value
        if parts.scheme in {"s3", "gs", "az"} and parts.netloc:
            return value
        raise ValueError("postgres, file:///directory, s3://bucket, gs://bucket or az://container")

    @field_validator("openai_base_url")
    @classmethod
    def _service(cls, value: str) -> str:
        parts = urlsplit(value)
        plain = not (parts.username or parts.password or parts.query or parts.fragment)
        if parts.scheme not in {"https", "http"} or not parts.hostname or not plain:
            raise ValueError("https://host/path, with no password, query or fragment in it")
        return value.rstrip("/")

    @field_validator("openai_api_key")
    @classmethod
    def _printable(cls, value: SecretStr | None) -> SecretStr | None:
        # A header that cannot be sent would be shown by the error that says so.
        if value is not None and not re.fullmatch("[!-~]+", value.get_secret_value()):
            raise ValueError("it holds a space, a line end or another character that no key has")
        return value

    @field_validator("upkeep_cron")
    @classmethod
    def _cron(cls, value: str) -> str:
        if not croniter.is_valid(value):
            raise ValueError("not a cron expression, such as */10 * * * *")
        return value

    @property
    def pooled(self) -> bool:
        """Whether `DATABASE_URL` may be a transaction pooler (prepared statements then fail)."""
        return (
            self.database_url_direct is not None and self.database_url_direct != self.database_url
        )


def process_id() -> str:
    """A name for this run of this process, never reused: lease owner, stream owner."""
    return uuid4().hex
