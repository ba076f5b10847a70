"""Structured logs: one JSON line each, on standard error. Prompts, answers and secrets are never among the fields."""

import contextlib
import logging
import sys
from typing import BinaryIO, cast

import msgspec
import structlog

_ENCODE = msgspec.json.Encoder(enc_hook=repr).encode


class _Forgiving:
    """A line that a full disk does not take is lost; the request that it is about is not."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, line: bytes) -> None:
        with contextlib.suppress(OSError):
            self._file.write(line)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._file.flush()


def configure(plane: str, level: str = "info") -> None:
    """Send structlog and the standard library's loggers (ours and our dependencies') to the same lines."""
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer(serializer=_serialize_bytes)],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.BytesLoggerFactory(cast(BinaryIO, _Forgiving(sys.stderr.buffer))),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.clear_contextvars()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(serializer=_serialize_text),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(number, logging.INFO), force=True)
    logging.getLogger("tokenworks").setLevel(number)
    for noisy in ("uvicorn.error", "uvicorn", "aiosqlite", "httpx", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.getLogger(f"tokenworks.{plane}").debug("logging is set up")


def _serialize_bytes(value: object, **_: object) -> bytes:
    return _ENCODE(value)


def _serialize_text(value: object, **_: object) -> str:
    return _ENCODE(value).decode()
