"""The command `quartapp`. Errors are one clear line and exit code 1; a traceback is a bug."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import click
import uvloop
from pydantic import ValidationError

from jobs.database import Pool, database_url, direct_url
from jobs.errors import DatabaseUnavailable, JobError
from jobs.migrate import SchemaTooNew, migrate
from jobs.model import Role
from jobs.settings import JobSettings
from jobs.statuses import select_latest_status
from quartapp.accounts import insert_user, parse_address, select_credentials
from quartapp.local import TranscriptionFailed, transcribe_file
from quartapp.logs import configure_logging
from quartapp.passwords import MIN_LENGTH, hash_password, verify_password
from quartapp.progress_bar import progress_display
from quartapp.replay import history, in_rhythm, publish_again, timeline_line
from quartapp.runtime import running_base, running_recovery, running_services, running_worker
from quartapp.serve import serve as serve_until_stopped
from quartapp.serve import stopping_signals
from quartapp.services import Services
from quartapp.settings import SettingsError, WebSettings
from quartapp.sockets import CannotListen

T = TypeVar("T")
Settings = TypeVar("Settings", bound=JobSettings)

FIRST_ADMIN = "admin@example.com"
FIRST_ADMIN_FILE = "admin-password"

KNOWN_ERRORS = (
    CannotListen,
    DatabaseUnavailable,
    SchemaTooNew,
    SettingsError,
    JobError,
    TranscriptionFailed,
    OSError,
)


def read_settings(kind: type[Settings], **given: Any) -> Settings:
    """The environment, with what the command line says instead. Raises ClickException."""
    try:
        return kind(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        lines = [
            f"{'.'.join(str(step) for step in detail['loc'])}: {detail['msg']}"
            for detail in error.errors(include_url=False, include_input=False)
        ]
        raise click.ClickException("wrong setting: " + "; ".join(lines)) from error


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run to the end on uvloop. Raises ClickException for what is no fault of the program."""
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(main)
    except KNOWN_ERRORS as error:
        raise click.ClickException(one_line(error)) from error


def one_line(error: BaseException) -> str:
    """What happened, on one line."""
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{where}"
    text = str(error) or type(error).__name__
    return text.splitlines()[0]


@click.group()
@click.version_option(package_name="quartapp")
def main() -> None:
    """Audio transcription with live status."""


@main.command()
@click.option("--host", help="Address to listen on (HOST).")
@click.option("--port", type=int, help="Port to listen on, 0 for a free one (PORT).")
def serve(host: str | None, port: int | None) -> None:
    """Serve the web, and transcribe in the same process."""
    configure_logging()
    settings = read_settings(WebSettings, host=host, port=port)
    run(_serve(settings))


async def _serve(settings: WebSettings) -> None:
    await serve_until_stopped(settings, _greet)


async def _greet(address: str, services: Services, engine: str) -> None:
    settings = services.settings
    database = "embedded" if settings.development else "yours"
    lines = [
        f"quartapp is ready at {settings.public_url or address}",
        f"  engine: {engine}    database: {database}",
    ]
    if settings.development:
        directory = settings.data_dir.absolute()
        password = await _first_admin(services.pool, directory)
        if password is not None:
            lines.append(f"  sign in as {FIRST_ADMIN} with the password {password}")
            lines.append(f"  (kept in {directory / FIRST_ADMIN_FILE})")
    click.echo("\n".join(lines))
    sys.stdout.flush()


async def _first_admin(pool: Pool, data_dir: Path) -> str | None:
    """In development there is an account to begin with; None once its password was changed."""
    path = data_dir / FIRST_ADMIN_FILE
    found = await select_credentials(pool, FIRST_ADMIN)
    if found is None:
        password = secrets.token_urlsafe(9)
        await insert_user(pool, FIRST_ADMIN, await hash_password(password), Role.ADMIN)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(password + "\n")
        return password
    if not path.exists():
        return None
    password = path.read_text(encoding="utf-8").strip()
    return password if await verify_password(password, found[1]) else None


@main.command()
def worker() -> None:
    """Transcribe, without serving the web."""
    configure_logging()
    settings = read_settings(JobSettings)
    if not settings.job_slots:
        raise click.ClickException("QUARTAPP_JOB_SLOTS is 0: this worker would do nothing.")
    run(_worker(settings))


async def _worker(settings: JobSettings) -> None:
    stop = asyncio.Event()
    with stopping_signals(stop):
        async with (
            running_base(settings) as base,
            running_recovery(base, settings),
            running_worker(base, settings) as engine,
        ):
            click.echo(f"quartapp worker is ready (engine: {engine})")
            sys.stdout.flush()
            await stop.wait()


@main.command(name="migrate")
def migrate_command() -> None:
    """Bring the database to the schema of this version."""
    configure_logging(level=logging.WARNING)
    settings = read_settings(JobSettings)
    for name in run(_migrate(settings)):
        click.echo(f"applied {name}")
    click.echo("The database is up to date.")


async def _migrate(settings: JobSettings) -> list[str]:
    async with database_url(settings) as dsn:
        return await migrate(direct_url(settings, dsn))


@main.command()
@click.argument("email")
@click.option(
    "--role",
    type=click.Choice([role.value for role in Role]),
    default=Role.PATIENT.value,
    show_default=True,
)
def create_user(email: str, role: str) -> None:
    """Make an account. The password comes from QUARTAPP_PASSWORD or is asked for."""
    configure_logging(level=logging.WARNING)
    try:
        address = parse_address(email)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    password = os.environ.get("QUARTAPP_PASSWORD")
    if not password:
        if not sys.stdin.isatty():
            raise click.ClickException("Put the password into QUARTAPP_PASSWORD.")
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    if len(password) < MIN_LENGTH:
        raise click.ClickException(f"The password is too short: at least {MIN_LENGTH} characters.")
    run(_create_user(read_settings(JobSettings), address, password, Role(role)))
    click.echo(f"Made the account {address} with the role {role}.")


async def _create_user(settings: JobSettings, email: str, password: str, role: Role) -> None:
    async with running_base(settings) as base:
        user = await insert_user(base.pool, email, await hash_password(password), role)
    if user is None:
        raise click.ClickException(f"There is an account with the address {email} already.")


@main.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--format",
    "form",
    type=click.Choice(["txt", "srt", "vtt", "json"]),
    default="txt",
    show_default=True,
)
def transcribe(file: Path, form: str) -> None:
    """Transcribe FILE through the real queue; the transcript goes to standard output."""
    configure_logging(level=logging.WARNING)
    settings = read_settings(WebSettings)
    with progress_display() as show:
        text = run(_stoppable(lambda: transcribe_file(settings, file, form, show)))
    click.echo(text, nl=False)


@main.command()
@click.argument("session", type=click.UUID)
@click.option(
    "--speed",
    type=click.FloatRange(min=0, min_open=True),
    help="Play in its own rhythm, this many times as fast. Without: all at once.",
)
@click.option("--publish", is_flag=True, help="Send each event to the session's channel again.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def replay(session: UUID, speed: float | None, publish: bool, as_json: bool) -> None:
    """Tell again what SESSION went through."""
    configure_logging(level=logging.WARNING)
    run(_replay(read_settings(JobSettings), session, speed, publish, as_json))


async def _replay(
    settings: JobSettings, session_id: UUID, speed: float | None, publish: bool, as_json: bool
) -> None:
    async with running_base(settings) as base:
        start = None
        async for message in in_rhythm(history(base.pool, session_id), speed):
            start = start or message.at
            if publish:
                await publish_again(base.pool, message)
            click.echo(message.text if as_json else timeline_line(message, start))
            sys.stdout.flush()
        if start is None:
            raise click.ClickException(f"There is no status of a session {session_id}.")


@main.command()
@click.argument("session", type=click.UUID)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def watch(session: UUID, as_json: bool) -> None:
    """Follow SESSION live until it is over."""
    configure_logging(level=logging.WARNING)
    settings = read_settings(WebSettings)
    run(_stoppable(lambda: _watch(settings, session, as_json)))


async def _watch(settings: WebSettings, session_id: UUID, as_json: bool) -> None:
    async with running_base(settings) as base, running_services(base, settings) as services:
        if await select_latest_status(base.pool, session_id) is None:
            raise click.ClickException(f"There is no status of a session {session_id}.")
        start = None
        async with services.subscriber.subscribe(session_id, after=None) as subscription:
            async for message in subscription:
                start = start or message.at
                click.echo(message.text if as_json else timeline_line(message, start))
                sys.stdout.flush()
                if message.terminal:
                    return


async def _stoppable(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run the work; the first SIGINT or SIGTERM cancels it in good order."""
    stop = asyncio.Event()
    with stopping_signals(stop):
        task = asyncio.ensure_future(work())
        stopped = asyncio.ensure_future(stop.wait())
        await asyncio.wait([task, stopped], return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
        if task.cancelled():
            raise TranscriptionFailed("Interrupted.")
        return task.result()
