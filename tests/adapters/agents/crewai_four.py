"""A flow that echoes, fails, is slow or asks, as its input says."""

# It runs in a worker's environment; what it imports is not in ours.
# mypy: ignore-errors
# pyright: basic, reportMissingImports=false

import json
import os
import time

from crewai.flow import Flow, human_feedback, listen, router, start
from pydantic import BaseModel


class Wanted(BaseModel):
    message: str = ""
    mode: str = "echo"
    idempotency_key: str = ""


def note(event: str, wanted: Wanted) -> None:
    line = {"event": event, "text": wanted.message, "key": wanted.idempotency_key, "pid": os.getpid()}
    with open(os.environ["FOUR_LOG"], "a") as log:
        log.write(json.dumps(line) + "\n")


class Four(Flow[Wanted]):
    @start()
    def begin(self) -> str:
        print("noise on standard output")
        note("began", self.state)
        return self.state.message

    @router(begin)
    def choose(self) -> str:
        return f"do_{self.state.mode}"

    @listen("do_echo")
    def echo(self) -> str:
        return f"echo: {self.state.message}"

    @listen("do_fail")
    def fail(self) -> str:
        raise ValueError(self.state.message)

    @listen("do_slow")
    def slow(self) -> str:
        time.sleep(600)
        return ""

    @listen("do_ask")
    @human_feedback(message="really?")
    def ask(self) -> str:
        return self.state.message

    @listen(ask)
    def answered(self, feedback: object) -> str:
        return f"answered {feedback.feedback}"  # type: ignore[attr-defined] # HumanFeedbackResult
