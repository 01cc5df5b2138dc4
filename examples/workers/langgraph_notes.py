"""Makes research notes on a topic: picks angles, writes a note on each, and gathers them.

A LangGraph graph of three nodes. The model is scripted, so it runs offline and costs nothing: it composes what it says
from the prompt it is given. Put a real chat model in its place to have real notes.

    interhub agents add examples/workers/langgraph_notes.py:graph --framework langgraph
"""

import json
import os
import re
from collections.abc import Iterator
from typing import Any, TypedDict

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableConfig
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph

ANGLES = {
    "what it is for": "{topic} is for people who need {thing} to work the same way every time, whoever asks.",
    "how it works": "At the heart of {topic} a few plain steps around {thing} follow each other, each checkable.",
    "what to watch": "With {topic} the cost is in the edges: see how {thing} behaves when something is late or lost.",
}
"""What the scripted model knows to say of anything."""


class ScriptedModel(BaseChatModel):
    """Answers from the prompt alone: the lines `topic:` and `angle:` in it make the note."""

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _say(self, messages: list[BaseMessage]) -> AIMessage:
        prompt = "\n".join(str(message.content) for message in messages)
        asked = dict(re.findall(r"^(topic|angle): (.+)$", prompt, flags=re.MULTILINE))
        words = [word for word in re.findall(r"\w+", asked["topic"]) if len(word) > 3] or [asked["topic"]]
        text = ANGLES[asked["angle"]].format(topic=asked["topic"], thing=max(words, key=len).lower())
        used = {"input_tokens": len(prompt.split()), "output_tokens": len(text.split()), "total_tokens": 0}
        used["total_tokens"] = used["input_tokens"] + used["output_tokens"]
        return AIMessage(content=text, usage_metadata=used)

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._say(messages))])

    def _stream(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
        said = self._say(messages)
        words = str(said.content).split(" ")
        for number, word in enumerate(words, 1):
            last = number == len(words)
            used = said.usage_metadata if last else None
            yield ChatGenerationChunk(message=AIMessageChunk(content=word + " " * (not last), usage_metadata=used))


class Topic(TypedDict):
    topic: str


class Notes(TypedDict):
    topic: str
    angles: list[str]
    notes: list[str]
    report: str


model = ScriptedModel()


async def outline(state: Topic, config: RunnableConfig) -> dict[str, Any]:
    """Choose the angles."""
    _log_execution("notes", config["configurable"].get("idempotency_key", ""), state["topic"])
    get_stream_writer()({"text": f"outlining {state['topic']}", "done": 0, "total": len(ANGLES)})
    return {"angles": list(ANGLES)}


async def research(state: Notes) -> dict[str, Any]:
    """Ask the model for a note on each angle."""
    written: list[str] = []
    for angle in state["angles"]:
        note = await model.ainvoke(f"Write one note.\ntopic: {state['topic']}\nangle: {angle}")
        written.append(f"{angle}: {note.content}")
        get_stream_writer()({"text": f"noted {angle}", "done": len(written), "total": len(state["angles"])})
    return {"notes": written}


async def gather(state: Notes) -> dict[str, Any]:
    """Put the notes together."""
    return {"report": "\n".join([f"Notes on {state['topic']}", *(f"- {note}" for note in state["notes"])])}


class Report(TypedDict):
    notes: list[str]
    report: str


def _log_execution(agent: str, key: str, topic: str) -> None:
    path = os.environ.get("INTERHUB_EXAMPLE_LOG")
    if path:
        with open(path, "a") as log:
            log.write(json.dumps({"agent": agent, "key": key, "topic": topic, "pid": os.getpid()}) + "\n")


graph = (
    StateGraph(Notes, input_schema=Topic, output_schema=Report)
    .add_node("outline", outline)
    .add_node("research", research)
    .add_node("gather", gather)
    .add_edge(START, "outline")
    .add_edge("outline", "research")
    .add_edge("research", "gather")
    .add_edge("gather", END)
    .compile(name="notes")
)
