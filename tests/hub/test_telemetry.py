import json
import subprocess
import sys

import pytest

PROGRAM = """
import logging, sys, warnings
import structlog
from interhub.hub.settings import Logging
from interhub.hub.telemetry import start_logging, start_tracing
early = structlog.get_logger()
start_logging(Logging(**{settings}))
early.info("step_failed", step="a", error=ValueError("no"))
structlog.get_logger().debug("small_thing")
logging.getLogger("some.library").warning("it is %s", "late")
logging.getLogger("httpx").info("GET / 200")
try:
    raise RuntimeError("broken")
except RuntimeError:
    early.exception("request_failed")
flush = start_tracing("1.0")
flush()
"""


def _log(settings: dict[str, str], env: dict[str, str] | None = None) -> str:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM.replace("{settings}", repr(settings))],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/usr/bin:/bin", **(env or {})},
    )
    assert ended.stdout == ""
    return ended.stderr


def test_each_event_is_one_line_of_json_the_libraries_included() -> None:
    events = [json.loads(line) for line in _log({}).splitlines()]
    assert [event["event"] for event in events] == ["step_failed", "it is late", "request_failed"]
    assert events[0]["step"] == "a"
    assert events[0]["level"] == "info"
    assert events[1]["logger"] == "some.library"
    assert "RuntimeError: broken" in events[2]["exception"]
    assert all(event["timestamp"].endswith("Z") for event in events)


def test_as_text_it_is_read_by_people() -> None:
    said = _log({"format": "text"})
    assert "step_failed" in said
    assert not said.startswith("{")


@pytest.mark.parametrize(("level", "shown"), [("debug", True), ("warning", False)])
def test_the_level_is_that_of_the_settings(level: str, shown: bool) -> None:
    said = _log({"level": level})
    assert ("small_thing" in said) is shown
    assert ("GET / 200" in said) is shown
    assert "it is late" in said


def test_an_endpoint_for_traces_without_the_extra_is_said_with_its_remedy() -> None:
    said = _log({}, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"})
    assert "traces_not_exported" in said
    assert "pip install 'interhub[otel]'" in said


def test_what_others_said_does_not_steer_the_terminal() -> None:
    program = """
import structlog
from interhub.hub.settings import Logging
from interhub.hub.telemetry import start_logging
start_logging(Logging(format="text"))
structlog.get_logger().warning("agent_said", line="\\x1b[2Jgone\\x9b31m")
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert b"\\x1b[2Jgone\\x9b31m" in ended.stderr
    assert b"\x1b[2J" not in ended.stderr


SOON = """
import structlog
from opentelemetry import context, trace
from interhub.hub.settings import Logging
from interhub.hub.telemetry import log_soon, start_logging
start_logging(Logging(**{settings}))
span = trace.NonRecordingSpan(trace.SpanContext(1, 2, True))
context.attach(trace.set_span_in_context(span))
structlog.contextvars.bind_contextvars(request_id="r1")
facts = {"path": "/a", "status": 200}
structlog.get_logger().info("request", **facts)
log_soon("request", facts)
"""


@pytest.mark.parametrize("settings", [{}, {"format": "text"}, {"level": "warning"}])
def test_the_line_of_a_request_is_as_any_other(settings: dict[str, str]) -> None:
    program = SOON.replace("{settings}", repr(settings))
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    lines = ended.stderr.splitlines()
    if settings == {"level": "warning"}:
        assert not lines
    elif settings:
        assert [line.split(" ", 1)[1] for line in lines] == [lines[0].split(" ", 1)[1]] * 2
    else:
        usual, soon = (json.loads(line) for line in lines)
        assert usual.pop("timestamp")[:16] == soon.pop("timestamp")[:16]
        assert usual == soon
