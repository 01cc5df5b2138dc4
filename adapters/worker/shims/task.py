"""One call of an agent inside a worker, and how it can end."""

import base64
import contextvars
import dataclasses
import json
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, Protocol, cast


class ToHub(Protocol):
    """The way back to the hub."""

    def send(self, frame: Mapping[str, Any]) -> None:
        """Write one frame."""
        ...

    def ask(self, method: str, params: Mapping[str, Any]) -> Any:
        """Ask the hub and wait for the answer."""
        ...


class Refused(Exception):
    """The agent cannot do what is asked; the words are for the caller."""


class ToolError(Exception):
    """A tool that the hub lends failed, or the hub lends none of that name."""


@dataclasses.dataclass(frozen=True)
class Resume:
    """The answer to a question that this task asked."""

    parts: list[dict[str, Any]]
    state: Any
    accepted: bool

    @property
    def text(self) -> str:
        """What the person said in words."""
        return "\n".join(part["text"] for part in self.parts if "text" in part)

    @property
    def data(self) -> Any:
        """What the person filled in, or None."""
        found = [part["data"] for part in self.parts if "data" in part]
        return found[0] if len(found) == 1 else found or None


@dataclasses.dataclass
class Usage:
    """What a task used, counted up while it runs."""

    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0

    def add(self, input_tokens: int, output_tokens: int, cost_usd: float = 0.0) -> None:
        """Add one model call."""
        self.input_tokens += input_tokens
        self.output_tokens += output_tokens
        self.cost_usd += cost_usd


class Task:
    """One call of the agent. Its methods may be used from any thread."""

    def __init__(self, wire: "ToHub", request_id: Any, params: Mapping[str, Any]) -> None:
        message = object_of(params.get("message"))
        resume = object_of(params.get("resume"))
        self.key: str = message.get("messageId") or str(request_id)
        """The idempotency key, the same on every attempt."""
        self.context_id: str = message.get("contextId") or ""
        self.parts: list[dict[str, Any]] = cast("list[dict[str, Any]]", message.get("parts", []))
        self.metadata: dict[str, Any] = object_of(params.get("metadata"))
        self.resume = Resume(resume["parts"], resume.get("state"), resume.get("accepted", True)) if resume else None
        self.usage = Usage()
        self.outside: set[Future[Any]] = set()
        """Work that was handed to threads and has not ended."""
        self._wire = wire
        self._request_id = request_id

    @property
    def text(self) -> str:
        """The message's words."""
        return "\n".join(part["text"] for part in self.parts if "text" in part)

    @property
    def data(self) -> dict[str, Any]:
        """The message's structured part, as one object. What is no object is under `data`."""
        merged: dict[str, Any] = {}
        for part in self.parts:
            if "data" in part:
                merged.update(object_of(part["data"]) if isinstance(part["data"], dict) else {"data": part["data"]})
        return merged

    def progress(self, text: str = "", done: float | None = None, total: float | None = None) -> None:
        """Show something while the caller waits."""
        status: dict[str, Any] = {"state": "TASK_STATE_WORKING", "message": agent_message(text_parts(text))}
        metadata = {name: value for name, value in (("done", done), ("total", total)) if value is not None}
        self._stream({"statusUpdate": {"taskId": self.key, "status": status, "metadata": metadata}})

    def artifact(
        self, artifact_id: str, parts: list[dict[str, Any]], *, name: str = "", append: bool = False, last: bool = True
    ) -> None:
        """Send a piece of an artifact as it is made."""
        artifact = {"artifactId": artifact_id, "name": name, "parts": parts}
        update = {"taskId": self.key, "artifact": artifact, "append": append, "lastChunk": last}
        self._stream({"artifactUpdate": update})

    def log(self, text: str, level: str = "info") -> None:
        """Send a line for the log."""
        self._stream({"log": {"text": text, "level": level}})

    def call_tool(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """Use a tool that the hub lends; blocks the calling thread, which must not be the event loop's.

        Raises:
            ToolError: it failed, or the hub lends no such tool.
        """
        return self._wire.ask("tools/call", {"taskId": self.key, "name": name, "arguments": dict(arguments)})

    def _stream(self, update: dict[str, Any]) -> None:
        self._wire.send({"jsonrpc": "2.0", "method": "StreamResponse", "params": {"id": self._request_id, **update}})


current_task: contextvars.ContextVar[Task | None] = contextvars.ContextVar("interhub_task", default=None)
"""The task that the code is running for: `from interhub_worker.task import current_task`."""


def completed(parts: list[dict[str, Any]], structured: Any = None) -> dict[str, Any]:
    """Make the end of a task that went well."""
    metadata = {} if structured is None else {"structured": jsonable(structured)}
    return {"state": "TASK_STATE_COMPLETED", "parts": parts, "metadata": metadata}


def input_required(parts: list[dict[str, Any]], *, state: Any, schema: Any = None) -> dict[str, Any]:
    """Make the end of a task that waits for a person. `state` must be all that another process needs to go on."""
    return {"state": "TASK_STATE_INPUT_REQUIRED", "parts": parts, "metadata": {"state": state, "schema": schema}}


def agent_message(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Make an A2A message of the agent."""
    return {"role": "ROLE_AGENT", "parts": parts}


def object_of(value: Any) -> dict[str, Any]:
    """Return a JSON object that may be missing."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def text_parts(text: str) -> list[dict[str, Any]]:
    """Make the parts of a text."""
    return [{"text": text}] if text else []


def data_parts(value: Any) -> list[dict[str, Any]]:
    """Make the parts of structured data."""
    return [{"data": jsonable(value)}]


def words(error: BaseException) -> str:
    """Say an exception in one line."""
    said = str(error)
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def plain(value: Any) -> Any:
    """Turn what json cannot write into what it can."""
    for method in ("model_dump", "to_json_dict"):
        dump = getattr(value, method, None)
        if callable(dump) and not isinstance(value, type):
            return dump(mode="json") if method == "model_dump" else dump()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    untyped = cast("Any", value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(untyped)
    if isinstance(value, Mapping):
        return dict(untyped)
    if isinstance(value, set | frozenset | tuple):
        return list(untyped)
    return str(untyped)


def jsonable(value: Any) -> Any:
    """Return the value as JSON has it, whatever it holds."""
    return json.loads(json.dumps(value, default=plain, skipkeys=True))
