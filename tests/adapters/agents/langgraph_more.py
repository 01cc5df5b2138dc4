"""Graphs of every make."""

# It runs in a worker's environment; what it imports is not in ours.
# mypy: ignore-errors
# pyright: basic, reportMissingImports=false, reportTypedDictNotRequiredAccess=false

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TypedDict

from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langgraph.func import entrypoint
from langgraph.graph import START, MessagesState, StateGraph


class Model(BaseChatModel):
    """Calls its tool once, then says what the conversation was about."""

    @property
    def _llm_type(self):
        return "scripted"

    def bind_tools(self, tools, **more):
        return self

    def _generate(self, messages, *args, **more):
        used = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
        if messages[-1].type == "human" and "pay" in messages[-1].content:
            call = {"name": "pay", "args": {"amount": 5}, "id": "c1"}
            message = AIMessage(content="", tool_calls=[call], usage_metadata=used)
        else:
            said = " | ".join(str(one.content) for one in messages if one.type in ("human", "tool"))
            message = AIMessage(content=f"heard: {said}", usage_metadata=used)
        return ChatResult(generations=[ChatGeneration(message=message)])


def pay(amount: int) -> str:
    """Pay an amount."""
    return f"paid {amount}"


chat = create_agent(Model(), tools=[pay])


def careful():
    """A factory."""
    return create_agent(Model(), tools=[pay], middleware=[HumanInTheLoopMiddleware(interrupt_on={"pay": True})])


uncompiled = StateGraph(MessagesState).add_node("say", lambda state: {"messages": [AIMessage("aye")]})
uncompiled.add_edge(START, "say")


@entrypoint()
async def shout(text: str) -> str:
    return text.upper()


class Job(TypedDict, total=False):
    first: str
    second: str
    done: bool


def sleep_in_thread(state: Job) -> Job:
    """Stubborn, with a child of its own."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(state["first"]).write_text(f"{os.getpid()} {child.pid}")
    time.sleep(600)
    return {}


stubborn = StateGraph(Job).add_node("sleep", sleep_in_thread).add_edge(START, "sleep").compile()


async def show_environment(state: Job) -> Job:
    return {"second": " ".join(sorted(os.environ))}


environment = StateGraph(Job).add_node("show", show_environment).add_edge(START, "show").compile()


def note(path):
    with open(path, "a") as log:
        log.write("ran\n")


async def count_slowly(state: Job) -> Job:
    note(state["first"])
    await asyncio.sleep(0.05)
    return {"done": True}


counted = StateGraph(Job).add_node("count", count_slowly).add_edge(START, "count").compile()


def exiting():
    sys.exit("I will not be made")


def crash_once(state: Job) -> Job:
    path = Path(state["first"] + ".crashed")
    if not os.path.exists(path):
        note(path)
        os._exit(3)
    return {"second": "survived"}


crashing = StateGraph(Job).add_node("count", count_slowly).add_node("crash", crash_once)
crashing = crashing.add_edge(START, "count").add_edge("count", "crash").compile()


async def leave(state: Job) -> Job:
    sys.exit("leaving")


leaving = StateGraph(Job).add_node("leave", leave).add_edge(START, "leave").compile()


def spawning():
    """Starts a child while it is imported, and writes both process ids into the working directory."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(os.environ["PIDS"]).write_text(f"{os.getpid()} {child.pid}")
    return chat


not_a_graph = 5
