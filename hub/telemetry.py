"""Logs and traces of the hub's process: structlog on stderr, ours and the libraries' alike, and OpenTelemetry switched.

The SDK and the exporter are the extra `interhub[otel]`; they are used when an OTLP endpoint is named by the standard
variables (OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT).
"""

import asyncio
import atexit
import logging
import os
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib import import_module
from importlib.util import find_spec
from threading import Lock
from time import time
from typing import Any, TextIO, TypeAlias

import orjson
import structlog
from opentelemetry import trace
from opentelemetry.trace import SpanContext
from structlog.contextvars import get_contextvars
from structlog.typing import EventDict, Processor, WrappedLogger

from .settings import Logging

log = structlog.get_logger()

LINGER_S = 0.05

_Facts: TypeAlias = tuple[float, str, dict[str, object], dict[str, Any], SpanContext | None]
"""A line to be: when, what, its fields, those bound to its context, and the span it belongs to."""

_QUIET = {
    "httpx": logging.WARNING,
    "httpcore": logging.WARNING,
    "httpx2": logging.WARNING,
    "httpcore2": logging.WARNING,
    "asyncio": logging.WARNING,
    "alembic": logging.WARNING,
    "sse_starlette": logging.WARNING,
    "dbos": logging.WARNING,
    "mcp": logging.WARNING,
    "a2a": logging.WARNING,
    "uvicorn": logging.WARNING,
}
"""Libraries that tell more than the hub's operator needs."""


def start_logging(settings: Logging, stream: TextIO | None = None) -> None:
    """Send the log of this process, the libraries' included, to `stream` (stderr): one line per event."""
    out = stream or sys.stderr
    as_text = settings.format == "text" or (settings.format == "auto" and out.isatty())
    level = getattr(logging, settings.level.upper())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_trace,
    ]
    rendered: list[Processor] = (
        [_add_readable, structlog.dev.ConsoleRenderer(colors=out.isatty())]
        if as_text
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(_json)]
    )
    lines, processors = _Lines(out), [*shared, *rendered]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lines,
        cache_logger_on_first_use=True,
    )
    _soon.lines = None if as_text or level > logging.INFO else lines
    _soon.debug = level <= logging.DEBUG
    _soon.chain, _soon.last = processors, processors[-1]
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendered],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name, least in _QUIET.items():
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(max(level, least) if settings.level != "debug" else level)
    logging.captureWarnings(True)


def log_soon(event: str, facts: dict[str, object]) -> None:
    """Log as `log.info(event, **facts)` does; in JSON, what is the same in every line is done when it is written.

    For the one line of each request: it costs a fifth of what a call of the logger costs (docs/adr/0009).
    """
    lines = _soon.lines
    if lines is None or _soon.chain[-1] is not _soon.last:  # the last is another while a test captures the log
        log.info(event, **facts)
        return
    span = trace.get_current_span().get_span_context()
    lines.later((time(), event, facts, get_contextvars(), span if span.is_valid else None))


def says_debug() -> bool:
    """Whether lines of the level `debug` are written at all: what is said there need not be made where they are not."""
    return _soon.debug


class _Soon:
    """What `log_soon` goes by: the log as `start_logging` set it up."""

    debug = True

    lines: "_Lines | None" = None
    chain: Sequence[Processor] = ()
    last: Processor | None = None


_soon = _Soon()


def start_tracing(version: str) -> Callable[[], None]:
    """Export spans where the environment names an OTLP endpoint. Returns what flushes them at the end.

    Call it before the A2A SDK is imported: its own spans, which cost more than the work, are switched off here.
    """
    os.environ.setdefault("OTEL_INSTRUMENTATION_A2A_SDK_ENABLED", "false")
    endpoint = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    if not endpoint or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return _nothing
    if find_spec("opentelemetry.sdk") is None or find_spec("opentelemetry.exporter") is None:
        log.warning("traces_not_exported", endpoint=endpoint, remedy="pip install 'interhub[otel]'")
        return _nothing
    # Imported by name: the extra is not there for the type checkers, nor for most installations.
    sdk: Any = import_module("opentelemetry.sdk.trace")
    export: Any = import_module("opentelemetry.sdk.trace.export")
    resources: Any = import_module("opentelemetry.sdk.resources")
    otlp: Any = import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    about = {"service.name": os.environ.get("OTEL_SERVICE_NAME", "interhub"), "service.version": version}
    provider = sdk.TracerProvider(resource=resources.Resource.create(about))
    provider.add_span_processor(export.BatchSpanProcessor(otlp.OTLPSpanExporter()))
    trace.set_tracer_provider(provider)

    def stop() -> None:
        provider.shutdown()

    return stop


class _Lines:
    """The log's lines, written together where many come at once: a write for each costs more than the line.

    Also structlog's factory of loggers: all log through the one. What is said below `warning` while a loop runs may
    wait for `LINGER_S`; everything is written when the process ends.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._waiting: list[str | _Facts] = []
        self._scheduled = False
        self._lock = Lock()
        atexit.register(self.flush)

    def __call__(self, *arguments: object) -> "_Lines":
        return self

    def later(self, line: "str | _Facts") -> None:
        """Write a line soon."""
        self._waiting.append(line)
        if self._scheduled:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.flush()
            return
        self._scheduled = True
        loop.call_later(LINGER_S, self.flush)

    def now(self, line: str) -> None:
        """Write a line, and what waits before it."""
        self._waiting.append(line)
        self.flush()

    def flush(self) -> None:
        """Write what waits."""
        with self._lock:
            self._scheduled = False
            waiting, self._waiting = self._waiting, []
            if waiting and not self._out.closed:
                lines = [line if isinstance(line, str) else _line(*line) for line in waiting]
                self._out.write("\n".join([*lines, ""]))
                self._out.flush()

    debug = info = msg = later
    warning = warn = error = critical = exception = fatal = now


def _line(at: float, event: str, facts: dict[str, object], bound: dict[str, Any], span: SpanContext | None) -> str:
    """Return what `log_soon` was given as the processors of `start_logging` write it."""
    stamp = datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")
    line = {**bound, **facts, "event": event, "level": "info", "timestamp": stamp}
    if span is not None:
        line["trace_id"], line["span_id"] = f"{span.trace_id:032x}", f"{span.span_id:016x}"
    return _json(line)


def _json(event: EventDict, **options: object) -> str:
    return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


def _nothing() -> None:
    pass


def _add_readable(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Write out the control characters of what others said: on a terminal they would be obeyed."""
    for name, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[name] = "".join(c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in value)
    return event


def _add_trace(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    span = trace.get_current_span().get_span_context()
    if span.is_valid:
        event["trace_id"] = f"{span.trace_id:032x}"
        event["span_id"] = f"{span.span_id:016x}"
    return event
