"""`kill -9` while a model plans, and while its plan is carried out: what it has answered is not asked for again."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.chat_api import ChatModel, Said, call, chat_api, plan


@contextmanager
def process(directory: Path, url: str) -> Generator[subprocess.Popen[str]]:
    program = [sys.executable, "-m", "tests.support.planned_hub", str(directory), url]
    with (directory / "errors.txt").open("ab") as errors:
        running = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True)
        try:
            yield running
        finally:
            os.killpg(running.pid, signal.SIGKILL)
            running.communicate(timeout=30)


def heard(running: subprocess.Popen[str], kind: str) -> dict[str, Any]:
    """Return the first line of a kind."""
    assert running.stdout is not None
    for line in running.stdout:
        if line.startswith("{") and (said := json.loads(line))["kind"] == kind:
            return dict(said)
    raise AssertionError(f"the process ended before it was {kind}")


def test_a_recorded_answer_of_the_model_is_never_asked_for_again(tmp_path: Path) -> None:
    held = threading.Event()
    good = plan(call("hold", "holder"), call("write", "writer", "{{ steps.hold.text }}"))
    model = ChatModel().say(plan(call("x", "nobody")), Said(value=good, hold=held), good)
    with chat_api(model):
        with process(tmp_path, model.url):
            # The first answer was sent back; the second is under way when the process is killed.
            assert model.wait_for(2), (tmp_path / "errors.txt").read_text()[-2000:]
        held.set()
        with process(tmp_path, model.url) as second:
            heard(second, "holding")
        (tmp_path / "go").touch()
        with process(tmp_path, model.url) as third:
            ended = heard(third, "ended")

    assert ended == {"kind": "ended", "state": "completed", "text": "writer heard: held: hold owls"}
    # Asked twice, cut off once, asked that once more under the same key; and no more after the plan was recorded.
    assert len(model.requests) == 3
    assert model.requests[1]["messages"] == model.requests[2]["messages"]
    assert model.keys[1] == model.keys[2] != model.keys[0]
