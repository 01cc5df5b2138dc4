"""A graph that echoes, fails, is slow or asks, as its input says."""

# It runs in a worker's environment; what it imports is not in ours.
# mypy: ignore-errors
# pyright: basic, reportMissingImports=false, reportTypedDictNotRequiredAccess=false

import asyncio
import json
import os
from typing import TypedDict

from langchain_core.runnables import RunnableConfig
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt


class State(TypedDict, total=False):
    text: str
    mode: str
    answer: str


def note(event: str, state: State, config: RunnableConfig) -> None:
    key = config["configurable"]["idempotency_key"]
    line = {"event": event, "text": state["text"], "key": key, "pid": os.getpid()}
    with open(os.environ["FOUR_LOG"], "a") as log:
        log.write(json.dumps(line) + "\n")


async def work(state: State, config: RunnableConfig) -> State:
    print("noise on standard output")
    if state["mode"] != "ask":
        note("began", state, config)
    match state["mode"]:
        case "echo":
            get_stream_writer()({"text": "reading", "done": 1, "total": 2})
            return {"answer": f"echo: {state['text']}"}
        case "fail":
            raise ValueError(state["text"])
        case "slow":
            try:
                await asyncio.sleep(600)
            except asyncio.CancelledError:
                note("canceled", state, config)
                raise
            return {}
        case _:
            said = interrupt({"question": f"really {state['text']}?"})
            return {"answer": f"answered {said}"}


graph = StateGraph(State).add_node("work", work).add_edge(START, "work").add_edge("work", END).compile()
