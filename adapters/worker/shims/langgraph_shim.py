"""Runs a LangGraph graph: a compiled graph, a StateGraph, or a function that makes one of them.

What goes in: the message's text becomes a HumanMessage where the input has `messages`, and otherwise the input's only
text field, or the first of `input`, `text`, `query`, ... that it has; the message's data are the other fields by name.
A function of `langgraph.func.entrypoint` takes the text, or the data where its input is no text.

What comes out: the last AI message's text, or the output's only text field that was not put in (or the first of
`output`, `answer`, ...); the whole output is the structured result, without `messages`.

The thread is the call's context. A graph without a checkpointer gets one in the worker's state folder, so that
`interrupt()` can be answered by another process. A call that comes again after a crash goes on after the last node that
was saved, or is answered at once if it had ended.

An answer in words resumes with a text, a form with its object, a declined question with None; questions of
HumanInTheLoopMiddleware take "approve", or else the reason why not.
"""

import importlib
import inspect
import os
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from .target import Unusable, find_target, import_target, summary
from .task import Refused, Task, completed, data_parts, input_required, jsonable, object_of, text_parts
from .wire import Wire

TEXT_INPUTS = ("input", "text", "query", "question", "topic", "message", "prompt", "task", "goal", "request", "subject")
TEXT_OUTPUTS = ("output", "answer", "result", "response", "report", "summary", "final", "text")
APPROVALS = frozenset({"approve", "approved", "yes", "y", "ok", "okay", "accept", "accepted", "go", "go ahead", "lgtm"})
FLUSH_AT = 120
"""Characters of a model's answer that are shown at once, so that a token is not a message of its own."""


class LangGraphAgent:
    """One graph, ready to run."""

    stateful = True

    def __init__(self, graph: Any, name: str, description: str, own_saver: bool) -> None:
        self._graph = graph
        # Each node is saved before the next begins, so that a crash repeats none; an author's own saver is left alone.
        self._options: dict[str, Any] = {"durability": "sync"} if own_saver else {}
        self._name = name
        self._description = description
        self._fields = _fields(graph)
        self._text_field = _text_field(self._fields)
        self.concurrent = not _has_sync_nodes(graph)

    def card(self) -> dict[str, Any]:
        """Describe the graph by its name, its module's docstring and its input."""
        fields = {name: schema for name, schema in self._fields.items() if name not in ("messages", self._text_field)}
        data: dict[str, Any] = {"type": "object", "description": "Further fields of the graph's input."}
        if self._fields:
            data["properties"] = fields
        where = f"; it is the field `{self._text_field}`" if self._text_field not in ("", "messages", None) else ""
        message = {"type": "string", "description": f"What to ask of the agent, in plain words{where}."}
        schema: dict[str, Any] = {
            "type": "object",
            "properties": {"message": message, **({"data": data} if fields or not self._fields else {})},
            "required": ["message"] if self._text_field is not None else [],
        }
        skill = {"id": self._name, "name": self._name, "description": self._description, "tags": ["langgraph"]}
        return {
            "name": self._name,
            "description": self._description,
            "skills": [{**skill, "inputSchema": schema}],
        }

    def leftover(self, task: Task) -> bool:
        """Return whether a plain node still runs in its thread."""
        return bool(task.outside)

    async def run(self, task: Task) -> dict[str, Any]:
        """Stream the graph to its end or to its next interrupt."""
        types = importlib.import_module("langgraph.types")
        thread = task.context_id or task.key
        given = self._input(task)
        resume = task.resume
        if resume is not None:
            thread = resume.state["thread_id"]
            value = _answer(resume.parts, resume.text, resume.data, resume.accepted, resume.state)
            graph_input: Any = types.Command(resume={resume.state["interrupt_id"]: value})
        else:
            graph_input = given
            before = await self._before(thread, task.key)
            if before is not None and before.interrupts:
                return _question(before.interrupts[0], thread)
            if before is not None and not before.next:
                return self._output(before.values, given)
            if before is not None:
                graph_input = None  # goes on after the last node that was saved
        config: dict[str, Any] = {
            "configurable": {"thread_id": thread, "idempotency_key": task.key, "context_id": task.context_id},
            "callbacks": [_usage_handler(task)],
            "metadata": {"idempotency_key": task.key, **{k: v for k, v in task.metadata.items() if isinstance(v, str)}},
        }
        output, interrupts = await self._stream(task, graph_input, config)
        if interrupts:
            return _question(interrupts[0], thread)
        return self._output(output, given)

    async def _before(self, thread: str, key: str) -> Any:
        """Return the thread's saved state if its last run was of this very call, which another process began."""
        if not hasattr(self._graph, "builder"):
            return None
        state = await self._graph.aget_state({"configurable": {"thread_id": thread}})
        metadata = object_of(state.metadata)
        began = metadata.get("source") != "input"  # else only the input was saved: no node is pending yet
        return state if began and metadata.get("idempotency_key") == key else None

    async def _stream(self, task: Task, graph_input: Any, config: dict[str, Any]) -> tuple[Any, list[Any]]:
        output: Any = None
        interrupts: list[Any] = []
        spoken = _Spoken(task)
        stream = self._graph.astream(
            graph_input,
            config,
            stream_mode=["updates", "custom", "messages", "values"],
            version="v2",
            **self._options,
        )
        async for part in stream:
            kind, data = part["type"], part["data"]
            if kind == "values":
                output = data
            elif kind == "messages":
                spoken.hear(data[0])
            elif kind == "custom":
                spoken.flush()
                _show(task, data)
            elif kind == "updates":
                spoken.flush()
                for node in data:
                    if node == "__interrupt__":
                        interrupts.extend(data[node])
                    elif not node.startswith("__"):
                        task.progress(f"{node}: done")
        spoken.flush()
        return output, interrupts

    def _input(self, task: Task) -> Any:
        text, data = task.text, task.data
        if not self._fields:  # an entrypoint, or a state that is no object
            return data or text
        unknown = sorted(set(data) - set(self._fields))
        if unknown:
            raise Refused(f"the graph's input has no {', '.join(unknown)}; it has {', '.join(self._fields)}")
        if self._text_field == "messages":
            human = importlib.import_module("langchain_core.messages").HumanMessage
            return {**data, "messages": [*data.get("messages", []), *([human(text)] if text else [])]}
        if self._text_field and text:
            return {self._text_field: text, **data}
        if text and not data:
            raise Refused(f"the graph's input has no field for a text; send data with {', '.join(self._fields)}")
        return data

    def _output(self, output: Any, given: Any) -> dict[str, Any]:
        if not isinstance(output, Mapping):
            dump = getattr(output, "model_dump", None)
            if dump is None:
                return completed(text_parts(output) if isinstance(output, str) else data_parts(output), output)
            output = dump()
        values = dict(cast("Mapping[str, Any]", output))
        named = self._graph.output_channels
        if not isinstance(named, str):  # the stream shows the whole state; the output is what the graph calls so
            values = {name: value for name, value in values.items() if name in named}
        messages = values.pop("messages", None)
        values.pop("__interrupt__", None)
        structured = jsonable(values) if values else None
        spoken = [message for message in cast("list[Any]", messages or []) if getattr(message, "type", "") == "ai"]
        if spoken:
            return completed(text_parts(_text_of(spoken[-1])), structured)
        texts = [name for name, value in values.items() if isinstance(value, str) and name not in object_of(given)]
        name = next((name for name in TEXT_OUTPUTS if name in texts), texts[0] if len(texts) == 1 else None)
        return completed(text_parts(values[name]) if name else data_parts(structured), structured)


class _Spoken:
    """Gathers a model's tokens into pieces worth showing."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._text = ""

    def hear(self, message: Any) -> None:
        if "AI" not in type(message).__name__:
            return
        self._text += _text_of(message)
        if len(self._text) >= FLUSH_AT:
            self.flush()

    def flush(self) -> None:
        if self._text.strip():
            self._task.progress(self._text)
        self._text = ""


def main(wire_in: int, wire_out: int) -> None:
    """Serve the graph that `initialize` names."""
    os.environ.setdefault("LANGSMITH_TRACING", "false")
    Wire(wire_in, wire_out, load).serve()


async def load(params: dict[str, Any]) -> LangGraphAgent:
    """Import the target and make a graph of it."""
    pregel = importlib.import_module("langgraph.pregel").Pregel
    state_graph = importlib.import_module("langgraph.graph").StateGraph
    module, attr = import_target(params["target"])
    found = find_target(module, attr, lambda value: isinstance(value, pregel | state_graph), "LangGraph graphs")
    name = attr if attr not in ("", "graph", "app", "agent") else Path(str(module.__file__)).stem
    if not isinstance(found, pregel | state_graph) and callable(found):
        takes = [one for one in inspect.signature(found).parameters.values() if one.default is one.empty]
        found = found({}) if len(takes) == 1 else found()  # as in langgraph.json: a factory may take the config
        found = await found if inspect.isawaitable(found) else found
    if isinstance(found, state_graph):
        found = cast("Any", found).compile()
    if not isinstance(found, pregel):
        raise Unusable(f"{params['target']} is {type(found).__name__}, not a LangGraph graph or a function making one")
    graph: Any = found
    own_saver = not graph.checkpointer
    if own_saver:
        graph.checkpointer = await _saver(Path(params["state_dir"]))
    if graph.name not in (None, "", "LangGraph"):
        name = str(graph.name)
    return LangGraphAgent(graph, name, summary(module.__doc__), own_saver)


async def _saver(folder: Path) -> Any:
    sqlite = importlib.import_module("langgraph.checkpoint.sqlite.aio")
    aiosqlite = importlib.import_module("aiosqlite")
    saver = sqlite.AsyncSqliteSaver(await aiosqlite.connect(str(folder / "threads.sqlite"), timeout=30))
    await saver.setup()
    return saver


def _fields(graph: Any) -> dict[str, Any]:
    """JSON Schemas of the input's fields by name; none when the input is no object."""
    builder = getattr(graph, "builder", None)
    adapter = importlib.import_module("pydantic").TypeAdapter
    schema: type[Any] | None = getattr(builder, "input_schema", None)
    if schema is None:
        described = cast("dict[str, Any]", graph.get_input_jsonschema())
        return dict(described.get("properties", {}))
    try:
        hints = typing.get_type_hints(schema)
    except (NameError, TypeError):
        hints = dict(getattr(schema, "__annotations__", {}))
    fields: dict[str, Any] = {}
    for name, hint in hints.items():
        if name == "messages":
            fields[name] = {"type": "array"}
            continue
        try:
            # Field by field: on Python 3.11 pydantic has no schema for a whole `typing.TypedDict`.
            fields[name] = adapter(hint).json_schema()
        except Exception:  # any type may stand in a state; one that JSON cannot describe is left open
            fields[name] = {}
    return fields


def _text_field(fields: Mapping[str, Any]) -> str | None:
    """Where the message's text goes: a field's name, empty for the input as a whole, None for nowhere."""
    if not fields:
        return ""
    if "messages" in fields:
        return "messages"
    texts = [name for name, schema in fields.items() if schema.get("type") == "string"]
    return next((name for name in TEXT_INPUTS if name in texts), texts[0] if len(texts) == 1 else None)


def _has_sync_nodes(graph: Any) -> bool:
    """Whether a node is a plain function: those block a thread that no cancellation stops."""
    for name, node in graph.nodes.items():
        bound: Any = getattr(node, "bound", None)
        if not name.startswith("__") and getattr(bound, "afunc", "none needed") is None:
            return True
    return False


def _usage_handler(task: Task) -> Any:
    base: type[Any] = importlib.import_module("langchain_core.callbacks").BaseCallbackHandler

    def on_llm_end(self: Any, response: Any, **more: Any) -> None:
        for generation in cast("list[Any]", response.generations[0] if response.generations else []):
            used = getattr(getattr(generation, "message", None), "usage_metadata", None)
            if used:
                task.usage.add(used.get("input_tokens", 0), used.get("output_tokens", 0))

    return type("UsageHandler", (base,), {"on_llm_end": on_llm_end, "run_inline": True})()


def _show(task: Task, data: Any) -> None:
    """Show what a node wrote with `get_stream_writer()`: a text, or an object with some text and numbers in it."""
    if not isinstance(data, dict):
        task.progress(str(data))
        return
    shown = cast("dict[str, Any]", data)
    text = next((str(shown[name]) for name in ("text", "message", "note", "status", "progress") if shown.get(name)), "")
    numbers = {name: shown[name] for name in ("done", "progress", "total") if isinstance(shown.get(name), int | float)}
    task.progress(text or str(shown), done=numbers.get("done", numbers.get("progress")), total=numbers.get("total"))


def _question(interrupt: Any, thread: str) -> dict[str, Any]:
    value = interrupt.value
    state: dict[str, Any] = {"thread_id": thread, "interrupt_id": interrupt.id}
    schema = getattr(interrupt, "response_schema", None)
    if schema is not None and not isinstance(schema, dict):
        schema = importlib.import_module("pydantic").TypeAdapter(schema).json_schema()
    if not isinstance(value, dict):
        return input_required(text_parts(str(value)), state=state, schema=schema)
    asked = cast("dict[str, Any]", value)
    if isinstance(asked.get("action_requests"), list):  # langchain's HumanInTheLoopMiddleware
        state["decisions"] = len(asked["action_requests"])
        text = "\n".join(str(one.get("description") or one.get("name")) for one in asked["action_requests"])
        schema = {
            "type": "object",
            "properties": {
                "decision": {"type": "string", "enum": ["approve", "reject"]},
                "message": {"type": "string", "description": "Why not."},
            },
            "required": ["decision"],
        }
    else:
        names = ("question", "message", "prompt", "text", "description", "title")
        text = next((str(asked[name]) for name in names if asked.get(name)), "")
    return input_required([*text_parts(text), *data_parts(asked)], state=state, schema=schema)


def _answer(parts: list[dict[str, Any]], text: str, data: Any, accepted: bool, state: dict[str, Any]) -> Any:
    """Return what `interrupt()` returns."""
    count = state.get("decisions")
    if count is None:
        return None if not accepted else data if data is not None else text
    if isinstance(data, dict) and "decisions" in data:
        return cast("dict[str, Any]", data)
    filled = cast("dict[str, Any]", data) if isinstance(data, dict) else {}
    approved = accepted and (filled.get("decision") == "approve" or text.strip().lower().rstrip(".!") in APPROVALS)
    reason = str(filled.get("message") or text or "The person declined.")
    decision = {"type": "approve"} if approved else {"type": "reject", "message": reason}
    return {"decisions": [decision] * count}


def _text_of(message: Any) -> str:
    content = getattr(message, "content", "")
    if isinstance(content, str):
        return content
    blocks = cast("list[Any]", content)
    return "".join(block if isinstance(block, str) else str(block.get("text", "")) for block in blocks)
