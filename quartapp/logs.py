"""Logging: structlog over the standard library, lines for people on a terminal, JSON elsewhere."""

from __future__ import annotations

import asyncio
import logging
import sys

import structlog


def configure_logging(*, level: int = logging.INFO) -> None:
    """To standard error. Library loggers take the same way."""
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.types.Processor
    if sys.stderr.isatty():
        # Never with the values of variables: a password may be among them.
        plain = structlog.dev.plain_traceback
        renderer = structlog.dev.ConsoleRenderer(exception_formatter=plain)
    else:
        shared.append(structlog.processors.format_exc_info)
        renderer = structlog.processors.JSONRenderer(ensure_ascii=False)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # SAQ tells of every job twice over, and warns at every stop; ours says the session's id.
    logging.getLogger("saq").setLevel(logging.ERROR)
    # While the database is away this tells of every try; the listener says it once.
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("asyncio").addFilter(_not_the_end_of_a_connection)


def _not_the_end_of_a_connection(record: logging.LogRecord) -> bool:
    """asyncio calls it an error when the task of a connection ends otherwise than by itself: when
    hypercorn cancels it at a stop, and when the kernel gives up a client that has vanished."""
    error = record.exc_info[1] if record.exc_info else None
    ended = isinstance(error, OSError) and "client_connected_cb" in record.getMessage()
    return not (ended or isinstance(error, asyncio.CancelledError))
