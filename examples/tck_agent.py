"""An agent that does what conformance suites ask for: the A2A TCK by the prefix of the message's id, ACTS by its text.

The A2A TCK (a2aproject/a2a-tck, `scenarios/*.feature`) names a scenario in the id of the message, as in
`tck-input-required-1f0c`; the A2A Conformance Test Specification names it in the first word of the text, as in
`tck-multi-turn start`. What a task does is said by its first message; messages that follow go on with it, unless they
name a scenario themselves. A message that names none is asked back to, so that its task stays open.

It runs in two ways, which share the scenarios:

* `python examples/tck_agent.py --port 0` is an A2A agent of its own, on the A2A SDK: JSON-RPC and HTTP+JSON, 1.0 and
  0.3, and gRPC with `--grpc-port 0`. It prints `{"url": ..., "grpc": ...}` once it answers.
* `examples/tck_agent.py:conformance` is the target of a `local` agent, which a hub runs in its own process.

`scripts/tck.py` runs the suites against both, each behind a hub.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import socket
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import anyio
import uvicorn
from a2a.helpers.proto_helpers import new_task_from_user_message
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes, create_rest_routes
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import AgentCapabilities, AgentCard, AgentInterface, AgentSkill, Part, TaskState
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Value
from starlette.applications import Starlette
from starlette.routing import Mount

from interhub.adapters import (
    Artifact,
    ArtifactChunk,
    Call,
    Completed,
    DataPart,
    InputRequired,
    Outcome,
    Progress,
    RawPart,
    RemoteRefused,
    RemoteRejected,
    Report,
    Resume,
    TextPart,
    UrlPart,
)
from interhub.adapters import Part as HubPart

DESCRIPTION = "Does what conformance suites ask for: completes, rejects, asks, streams and makes artifacts by scenario."
LONG_S = 5.0
"""How long the TCK's task to subscribe to goes on: longer than its streaming timeout of 2 s, twice."""

_SCENARIO = re.compile(r"(tck-[a-z0-9]+(?:-[a-z0-9]+)*)")


@dataclass(frozen=True)
class Say:
    """Works on, and says something."""

    text: str


@dataclass(frozen=True)
class Make:
    """Makes an artifact, or a further piece of it."""

    part: HubPart
    name: str = "output"
    append: bool = False
    last: bool = True


@dataclass(frozen=True)
class Pause:
    """Works in silence; without a number until it is canceled."""

    seconds: float | None = None


@dataclass(frozen=True)
class End:
    """Ends, or waits for the person."""

    state: str
    """`completed`, `failed`, `rejected`, `input-required`, `auth-required`, or `message`: an answer without a task."""
    text: str


Deed: TypeAlias = Say | Make | Pause | End

_HELLO = End("completed", "Hello from TCK")
_ASK = End("input-required", "What else?")


def _file(name: str, data: bytes) -> RawPart:
    return RawPart(raw=data, media_type="text/plain", filename=name)


def _link(name: str) -> UrlPart:
    return UrlPart(url=f"https://example.com/{name}", media_type="text/plain", filename=name)


TCK: dict[str, tuple[Deed, ...]] = {
    "tck-complete-task": (_HELLO,),
    "tck-artifact-text": (Make(TextPart(text="Generated text content")), _HELLO),
    "tck-artifact-file-url": (Make(_link("output.txt")), _HELLO),
    "tck-artifact-file": (Make(_file("output.txt", b"Generated file content")), _HELLO),
    "tck-artifact-data": (Make(DataPart(data={"key": "value", "count": 42})), _HELLO),
    "tck-message-response": (End("message", "Direct message response"),),
    "tck-input-required": (_ASK,),
    "tck-reject-task": (End("rejected", "rejected"),),
    "tck-stream-001": (Say("working"), Make(TextPart(text="Stream hello from TCK")), _HELLO),
    "tck-stream-002": (_HELLO,),
    "tck-stream-003": (Say("working"), Make(TextPart(text="Stream task lifecycle")), _HELLO),
    "tck-stream-ordering-001": (Say("working"), Make(TextPart(text="Ordered output")), _HELLO),
    "tck-stream-artifact-text": (Say("working"), Make(TextPart(text="Streamed text content")), _HELLO),
    "tck-stream-artifact-file": (Say("working"), Make(_file("output.txt", b"Streamed file content")), _HELLO),
    "tck-stream-artifact-chunked": (
        Say("working"),
        Make(TextPart(text="chunk-1 "), last=False),
        Make(TextPart(text="chunk-2"), append=True),
        _HELLO,
    ),
    "test-resubscribe-message-id": (Say("working"), Pause(LONG_S), _HELLO),
}
"""Scenarios by the prefix of the message's id; of two that fit, the longer one."""

ACTS: dict[str, tuple[Deed, ...]] = {
    "tck-complete-task": (End("completed", "tck-complete-task ok"),),
    "tck-input-required": (_ASK,),
    "tck-auth-required": (End("auth-required", "Who are you?"),),
    "tck-reject-task": (End("rejected", "tck-reject-task ok"),),
    "tck-task-failure": (End("failed", "tck-task-failure ok"),),
    "tck-message-response": (End("message", "tck message response"),),
    "tck-multi-turn": (End("input-required", "more input please"),),
    "tck-cancel": (Say("working"), Pause()),
    "tck-long-running": (
        Say("working"),
        Pause(1.0),
        Make(TextPart(text="long running result")),
        End("completed", "long running work finished"),
    ),
    "tck-artifact-text": (Make(TextPart(text="generated text content")), _HELLO),
    "tck-artifact-data": (Make(DataPart(data={"key": "value", "count": 1})), _HELLO),
    "tck-artifact-file": (Make(_file("document.txt", b"file bytes")), _HELLO),
    "tck-artifact-file-url": (Make(_link("document.txt")), _HELLO),
    "tck-stream-basic": (Say("streaming started"), Make(TextPart(text="streamed content")), _HELLO),
    "tck-stream-chunked": (
        Say("streaming started"),
        Make(TextPart(text="chunk one "), last=False),
        Make(TextPart(text="chunk two "), append=True, last=False),
        Make(TextPart(text="chunk three"), append=True),
        _HELLO,
    ),
}
"""Scenarios by the first word of the text."""


def scenario(message_id: str, text: str, first: str = "") -> tuple[Deed, ...]:
    """Return what is to be done about a message; `first` is the text of its task's first message, if it is not that."""
    fitting = [prefix for prefix in TCK if message_id.startswith(prefix)]
    if fitting:
        return TCK[max(fitting, key=len)]
    named = _SCENARIO.match(text.strip())
    if named is not None:
        name = named.group(1)
        return ACTS.get(name) or (End("failed", f"no scenario is called {name!r}"),)
    if first.startswith("tck-multi-turn") and text.strip().lower().startswith("done"):
        return (End("completed", "multi-turn complete"),)
    return (_ASK,)


# In the hub's own process


async def conformance(
    message: str = "", data: Any = None, *, call: Call, report: Report, resume: Resume | None
) -> Outcome:
    """Do what a conformance suite asks for: complete, reject, ask, stream and make artifacts, by scenario."""
    message_id = call.message.message_id if call.message is not None else ""
    said, first = message, ""
    if resume is not None:
        message_id, first = resume.message_id, message
        said = "\n".join(part.text for part in resume.answer if isinstance(part, TextPart))
    made: dict[str, Artifact] = {}
    for deed in scenario(message_id, said, first):
        match deed:
            case Say(text=text):
                await report(Progress(text=text))
            case Make(part=part, name=name, append=append, last=last):
                piece = Artifact(artifact_id=name, name=name, parts=(part,))
                await report(ArtifactChunk(artifact=piece, append=append, last=last))
                before = made[name].parts if append else ()
                made[name] = Artifact(artifact_id=name, name=name, parts=(*before, part))
            case Pause(seconds=seconds):
                await (anyio.sleep_forever() if seconds is None else anyio.sleep(seconds))
            case End(state=state, text=text):
                return _outcome(state, text, tuple(made.values()))
    raise AssertionError("every scenario ends")


def _outcome(state: str, text: str, artifacts: tuple[Artifact, ...]) -> Outcome:
    match state:
        case "completed" | "message":
            return Completed(parts=(TextPart(text=text),), artifacts=artifacts, as_message=state == "message")
        case "rejected":
            raise RemoteRejected("the conformance agent", text)
        case "failed":
            raise RemoteRefused("the conformance agent", text)
        case _:
            return InputRequired(question=(TextPart(text=text),), auth=state == "auth-required")


# As an A2A agent of its own


class Conformance(AgentExecutor):
    """Plays the scenarios over A2A."""

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        message, task = context.message, context.current_task
        assert message is not None
        assert context.task_id is not None
        assert context.context_id is not None
        updater = TaskUpdater(event_queue, context.task_id, context.context_id)
        first = _text(task.history[0].parts) if task is not None and task.history else ""
        # A hub sends under an id of its own, and says in the metadata which one its caller's message had.
        metadata: dict[str, Any] = dict(message.metadata)
        message_id = str(metadata.get("interhub.dev/messageId") or message.message_id)
        deeds = scenario(message_id, _text(message.parts), first)
        if task is None and not (isinstance(deeds[0], End) and deeds[0].state == "message"):
            await event_queue.enqueue_event(new_task_from_user_message(message))
        for deed in deeds:
            match deed:
                case Say(text=text):
                    await updater.start_work(updater.new_agent_message([Part(text=text)]))
                case Make(part=part, name=name, append=append, last=last):
                    await updater.add_artifact(
                        [_part(part)],
                        artifact_id=f"{context.task_id}-{name}",
                        name=name,
                        append=append,
                        last_chunk=last,
                    )
                case Pause(seconds=seconds):
                    await (asyncio.Event().wait() if seconds is None else asyncio.sleep(seconds))
                case End(state="message", text=text):
                    await event_queue.enqueue_event(updater.new_agent_message([Part(text=text)]))
                case End(state=state, text=text):
                    await updater.update_status(_STATES[state], updater.new_agent_message([Part(text=text)]))

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        assert context.task_id is not None
        assert context.context_id is not None
        await TaskUpdater(event_queue, context.task_id, context.context_id).cancel()


_STATES = {
    "completed": TaskState.TASK_STATE_COMPLETED,
    "failed": TaskState.TASK_STATE_FAILED,
    "rejected": TaskState.TASK_STATE_REJECTED,
    "input-required": TaskState.TASK_STATE_INPUT_REQUIRED,
    "auth-required": TaskState.TASK_STATE_AUTH_REQUIRED,
}


def _text(parts: Sequence[Part]) -> str:
    return "\n".join(part.text for part in parts if part.WhichOneof("content") == "text")


def _part(part: HubPart) -> Part:
    match part:
        case TextPart():
            return Part(text=part.text)
        case DataPart():
            return Part(data=ParseDict(part.data, Value()))
        case RawPart():
            return Part(raw=part.raw, media_type=part.media_type, filename=part.filename)
        case UrlPart():
            return Part(url=part.url, media_type=part.media_type, filename=part.filename)


def agent_card(url: str, grpc: str = "") -> AgentCard:
    """Write the card of the agent at `url`; `grpc` is the address of its gRPC port, if it has one."""
    interfaces = [
        AgentInterface(url=f"{url}{path}", protocol_binding=binding, protocol_version=version)
        for version in ("1.0", "0.3")
        for path, binding in (("/rpc", "JSONRPC"), ("/rest", "HTTP+JSON"))
    ]
    if grpc:
        interfaces.append(AgentInterface(url=grpc, protocol_binding="GRPC", protocol_version="1.0"))
    return AgentCard(
        name="Conformance agent",
        description=DESCRIPTION,
        version="1.0.0",
        supported_interfaces=interfaces,
        capabilities=AgentCapabilities(streaming=True),
        default_input_modes=["text/plain", "application/json"],
        default_output_modes=["text/plain", "application/json"],
        skills=[
            AgentSkill(
                id="conformance", name="Conformance", description=DESCRIPTION, tags=["conformance", "tck", "acts"]
            )
        ],
    )


def make_handler(card: AgentCard) -> DefaultRequestHandler:
    """Return what answers the agent's requests, on every binding."""
    return DefaultRequestHandler(
        agent_executor=Conformance(), task_store=InMemoryTaskStore(), agent_card=card, interrupted_task_timeout=600
    )


def agent_app(card: AgentCard, handler: DefaultRequestHandler) -> Starlette:
    """Put the agent's routes together."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        yield
        await handler.aclose()

    return Starlette(
        lifespan=lifespan,
        routes=[
            *create_agent_card_routes(card, cache_control="public, max-age=60"),
            *create_jsonrpc_routes(handler, "/rpc", enable_v0_3_compat=True),
            Mount("/rest", routes=create_rest_routes(handler, enable_v0_3_compat=True)),
        ],
    )


async def _serve(listening: socket.socket, host: str, grpc_port: int | None) -> None:
    url = f"http://{host}:{listening.getsockname()[1]}"
    server: Any = None
    grpc_address = ""
    if grpc_port is not None:
        import grpc.aio  # only where it is asked for: the extra may not be installed
        from a2a.server.request_handlers.grpc_handler import GrpcHandler
        from a2a.types.a2a_pb2_grpc import add_A2AServiceServicer_to_server

        server = grpc.aio.server()
        grpc_address = f"{host}:{server.add_insecure_port(f'{host}:{grpc_port}')}"
    card = agent_card(url, grpc_address)
    handler = make_handler(card)
    if server is not None:
        add_A2AServiceServicer_to_server(GrpcHandler(handler), server)
        await server.start()
    config = uvicorn.Config(agent_app(card, handler), log_level="warning", timeout_graceful_shutdown=2)
    print(json.dumps({"url": url, "grpc": grpc_address}), flush=True)  # what arrives from now on waits in the socket
    await uvicorn.Server(config).serve(sockets=[listening])
    if server is not None:
        await server.stop(0)


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(description="An A2A agent that answers conformance suites.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True, help="0 takes a free one")
    parser.add_argument("--grpc-port", type=int, help="serve gRPC as well; 0 takes a free one")
    options = parser.parse_args()
    # The protocol must be named: asyncio switches Nagle's algorithm off (40 ms an answer) only where it is TCP's.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((options.host, options.port))
    listening.listen(128)
    asyncio.run(_serve(listening, options.host, options.grpc_port))


if __name__ == "__main__":
    main()
