"""How `quartapp transcribe` shows progress: a bar on a terminal, plain lines elsewhere; always on
standard error, so that the transcript alone goes to standard output."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from jobs.model import StatusMessage


@contextmanager
def progress_display() -> Iterator[Callable[[StatusMessage], None]]:
    """Call what this yields with every status event."""
    if sys.stderr.isatty():
        with _bar() as show:
            yield show
    else:
        yield _line


@contextmanager
def _bar() -> Iterator[Callable[[StatusMessage], None]]:
    columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("Starting", total=100)

        def show(message: StatusMessage) -> None:
            progress.update(
                task, completed=message.progress, description=message.fields()["message"]
            )

        yield show


def _line(message: StatusMessage) -> None:
    click.echo(f"{message.progress:>3} %  {message.fields()['message']}", err=True)
