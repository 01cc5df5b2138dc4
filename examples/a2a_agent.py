"""A text reviewer as an independent A2A agent: A2A 1.0 and 0.3, JSON-RPC and HTTP+JSON, with nothing of interhub in it.

    python a2a_agent.py --port 9100 [--log executions.jsonl] [--pace 0.1]

It needs only what `requirements/a2a_agent.txt` names. Port 0 takes a free one; the first line on stdout is
`{"url": "http://127.0.0.1:<port>"}`, printed once the agent answers.

It reads the text that it is sent and reports how long it is, which sources it names, which sentences make claims that
can be checked (figures, dates, superlatives, "studies show"), and which of these stand there without a source. The
review comes as one artifact with a readable part and a data part, and news of the work comes while it lasts.

A text may begin with a word that asks for another behaviour:

    slow: 30 text       work for 30 seconds before the review
    ask: text           ask for the sources first, then review the text together with the answer
    fail: reason        fail, for this reason
    reject: reason      refuse the task, for this reason
    message: text       answer with a message, without a task
    chunks: 5 text      send the review in 5 pieces

A message that is sent again (the same messageId) is not executed again: the caller gets the task, or message, that it
led to the first time, and may wait for its end. The memory of that is the process's: it lasts until it is stopped.

The log has two JSON lines for each execution: `{"event": "started", "messageId", "taskId", "contextId", "digest",
"metadata", "at"}` and `{"event": "ended", "messageId", "taskId", "state", "at"}`; `digest` is the SHA-256 of the text.
"""

import argparse
import asyncio
import hashlib
import json
import re
import socket
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import uvicorn
from a2a.helpers import new_task_from_user_message
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.context import ServerCallContext
from a2a.server.events import Event, EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes, create_rest_routes
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import (
    AgentCapabilities,
    AgentCard,
    AgentInterface,
    AgentSkill,
    GetTaskRequest,
    Message,
    Part,
    SendMessageRequest,
    SubscribeToTaskRequest,
    Task,
    TaskState,
)
from a2a.utils.errors import TaskNotFoundError, UnsupportedOperationError
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.struct_pb2 import Value
from starlette.applications import Starlette
from starlette.routing import Mount

SOURCE = re.compile(
    r"https?://[^\s)>\]]+|\[\d+\]|\bdoi:\S+|\b(?:according to|as reported by|source:)\s+(?!https?:)[^.,;\n]+", re.I
)
CLAIM = re.compile(
    r"\d|\b(?:always|never|every|none|first|only|most|best|worst|largest|smallest|fastest|proven?|studies|experts"
    r"|research(?:ers)?|significant(?:ly)?|percent|majority)\b",
    re.I,
)
SETTLED = {
    TaskState.TASK_STATE_COMPLETED,
    TaskState.TASK_STATE_FAILED,
    TaskState.TASK_STATE_CANCELED,
    TaskState.TASK_STATE_REJECTED,
    TaskState.TASK_STATE_INPUT_REQUIRED,
    TaskState.TASK_STATE_AUTH_REQUIRED,
}


@dataclass(frozen=True)
class Review:
    """What was found in a text."""

    words: int
    sentences: int
    words_per_sentence: float
    sources: list[str]
    claims: int
    unsupported: list[str]
    verdict: str

    def __str__(self) -> str:
        lines = [
            f"Verdict: {self.verdict}",
            f"{self.words} words in {self.sentences} sentences ({self.words_per_sentence:.1f} words each).",
            f"Sources: {'; '.join(self.sources) if self.sources else 'none'}.",
            f"Claims that can be checked: {self.claims}, without a source: {len(self.unsupported)}.",
            *(f"- no source: {sentence}" for sentence in self.unsupported),
        ]
        return "\n".join(lines)


def review(text: str) -> Review:
    """Review a text. A claim is supported by a source in its own sentence or the next."""
    sentences = [each.strip() for each in re.split(r"(?<=[.!?])\s+|\n+", text) if re.search(r"\w", each)]
    words = sum(len(re.findall(r"\w+(?:['\u2019-]\w+)*", each)) for each in sentences)
    claims = [n for n, each in enumerate(sentences) if CLAIM.search(SOURCE.sub("", each))]
    unsupported = [sentences[n] for n in claims if not any(SOURCE.search(near) for near in sentences[n : n + 2])]
    sources = list(dict.fromkeys(match.strip().rstrip(".,;") for match in SOURCE.findall(text)))
    length = words / len(sentences) if sentences else 0.0
    if not words:
        verdict = "there is nothing to review"
    elif unsupported:
        verdict = f"{len(unsupported)} of {len(claims)} claims need a source"
    elif claims:
        verdict = "every claim names a source"
    else:
        verdict = "no claims that could be checked"
    if length > 30:
        verdict += "; the sentences are long"
    return Review(words, len(sentences), length, sources, len(claims), unsupported, verdict)


def _data(value: object) -> Part:
    return Part(data=ParseDict(value, Value()), media_type="application/json")


class ExecutionLog:
    """Appends what was executed, as JSON lines."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def write(self, **facts: object) -> None:
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({**facts, "at": time.time()}) + "\n")


class Reviewer(AgentExecutor):
    """Reviews texts."""

    def __init__(self, log: ExecutionLog, *, pace_s: float) -> None:
        self._log = log
        self._pace_s = pace_s

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        message, task_id, context_id = context.message, context.task_id, context.context_id
        assert message is not None
        assert task_id is not None
        assert context_id is not None
        text = _text_of(message)
        updater = TaskUpdater(event_queue, task_id, context_id)
        kind, rest = _behaviour(text)
        if kind != "message" and context.current_task is None:
            await event_queue.enqueue_event(new_task_from_user_message(message))
        about = {"messageId": message.message_id, "taskId": task_id}
        self._log.write(
            event="started",
            **about,
            contextId=context_id,
            digest=hashlib.sha256(text.encode()).hexdigest(),
            metadata=MessageToDict(message.metadata),
        )
        state = "canceled"
        try:
            if kind == "message":
                await event_queue.enqueue_event(updater.new_agent_message([Part(text=str(review(rest)))]))
                state = "message"
            else:
                state = await self._work(context, updater, kind, rest)
        finally:
            self._log.write(event="ended", **about, state=state)

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        assert context.task_id is not None
        assert context.context_id is not None
        updater = TaskUpdater(event_queue, context.task_id, context.context_id)
        await updater.cancel(updater.new_agent_message([Part(text="Stopped, as asked.")]))

    async def _work(self, context: RequestContext, updater: TaskUpdater, kind: str, text: str) -> str:
        def say(words: str) -> Message:
            return updater.new_agent_message([Part(text=words)])

        asked = context.current_task
        if asked is not None and asked.status.state == TaskState.TASK_STATE_INPUT_REQUIRED:
            first = next((_behaviour(_text_of(each))[1] for each in asked.history), "")
            await updater.start_work(say(f"Thank you for: {text}"))
            return await self._review(updater, f"{first}\nSource: {text}", pieces=1)
        match kind:
            case "fail":
                await updater.failed(say(text or "asked to fail"))
                return "failed"
            case "reject":
                await updater.reject(say(text or "asked to reject"))
                return "rejected"
            case "ask":
                await updater.requires_input(say(f"Which sources are there for: {text}"))
                return "input-required"
            case "slow":
                seconds, text = _number(text, 30.0)
                until = time.monotonic() + seconds
                while (left := until - time.monotonic()) > 0:
                    await updater.start_work(say(f"Reading slowly, {left:.1f} s left"))
                    await asyncio.sleep(min(left, max(self._pace_s, 0.1)))
                return await self._review(updater, text, pieces=1)
            case "chunks":
                pieces, text = _number(text, 3)
                return await self._review(updater, text, pieces=int(pieces))
            case _:
                return await self._review(updater, text, pieces=1)

    async def _review(self, updater: TaskUpdater, text: str, *, pieces: int) -> str:
        found = review(text)
        news = [
            f"Reading {found.words} words",
            f"Found {len(found.sources)} sources",
            f"Checked {found.claims} claims",
        ]
        for line in news:
            await updater.start_work(updater.new_agent_message([Part(text=line)]))
            await asyncio.sleep(self._pace_s)
        written, artifact_id = str(found), f"review-{updater.task_id}"
        if pieces <= 1:
            parts = [Part(text=written, media_type="text/plain"), _data(asdict(found))]
            await updater.add_artifact(parts, artifact_id=artifact_id, name="review", last_chunk=True)
        else:
            size = -(-len(written) // pieces)
            for n in range(pieces):
                await updater.add_artifact(
                    [Part(text=written[n * size : (n + 1) * size])],
                    artifact_id=artifact_id,
                    name="review",
                    append=n > 0,
                    last_chunk=n == pieces - 1,
                )
        await updater.complete(updater.new_agent_message([Part(text=found.verdict)]))
        return "completed"


class OnceHandler(DefaultRequestHandler):
    """Executes each message once, however often it is sent."""

    _led_to: dict[str, "asyncio.Future[Message | str]"]

    async def on_message_send(self, params: SendMessageRequest, context: ServerCallContext) -> Message | Task:
        first, led_to = self._remembered(params.message)
        if not first:
            known = await led_to
            if isinstance(known, Message):
                return known
            return await self._await_task(known, context, at_once=params.configuration.return_immediately)
        try:
            result = await super().on_message_send(params, context)
        except BaseException as error:
            self._give_up(params.message, led_to, error)
            raise
        led_to.set_result(result.id if isinstance(result, Task) else result)
        return result

    async def on_message_send_stream(
        self, params: SendMessageRequest, context: ServerCallContext
    ) -> AsyncGenerator[Event, None]:
        first, led_to = self._remembered(params.message)
        if not first:
            known = await led_to
            if isinstance(known, Message):
                yield known
                return
            try:
                async for event in self.on_subscribe_to_task(SubscribeToTaskRequest(id=known), context):
                    yield event
                    if isinstance(event, Task) and event.status.state in SETTLED:
                        return
            except UnsupportedOperationError:
                yield await self._task(known, context)
            return
        try:
            async for event in super().on_message_send_stream(params, context):
                if not led_to.done():
                    led_to.set_result(
                        event if isinstance(event, Message) else event.id if isinstance(event, Task) else event.task_id
                    )
                yield event
        except BaseException as error:
            self._give_up(params.message, led_to, error)
            raise

    def _remembered(self, message: Message) -> tuple[bool, "asyncio.Future[Message | str]"]:
        """Return whether the message is new, and what will tell what it led to."""
        if not hasattr(self, "_led_to"):
            self._led_to = {}
        known = self._led_to.get(message.message_id)
        if known is not None:
            return False, known
        led_to: asyncio.Future[Message | str] = asyncio.get_running_loop().create_future()
        self._led_to[message.message_id] = led_to
        return True, led_to

    def _give_up(self, message: Message, led_to: "asyncio.Future[Message | str]", error: BaseException) -> None:
        if not led_to.done():
            del self._led_to[message.message_id]
            led_to.set_exception(TaskNotFoundError(str(error)))
            led_to.exception()  # nobody may be waiting

    async def _task(self, task_id: str, context: ServerCallContext) -> Task:
        task = await self.on_get_task(GetTaskRequest(id=task_id), context)
        assert task is not None
        return task

    async def _await_task(self, task_id: str, context: ServerCallContext, *, at_once: bool) -> Task:
        task = await self._task(task_id, context)
        while not at_once and task.status.state not in SETTLED:
            await asyncio.sleep(0.05)
            task = await self._task(task_id, context)
        return task


def _text_of(message: Message) -> str:
    texts = [part.text for part in message.parts if part.WhichOneof("content") == "text"]
    data = [MessageToDict(part.data) for part in message.parts if part.WhichOneof("content") == "data"]
    return "\n".join([*texts, *(json.dumps(each, ensure_ascii=False) for each in data)])


def _behaviour(text: str) -> tuple[str, str]:
    word, colon, rest = text.partition(":")
    if colon and word in {"slow", "ask", "fail", "reject", "message", "chunks"}:
        return word, rest.strip()
    return "", text


def _number(text: str, otherwise: float) -> tuple[float, str]:
    first, _, rest = text.partition(" ")
    try:
        return float(first), rest
    except ValueError:
        return otherwise, text


def agent_card(url: str) -> AgentCard:
    """Write the card of the agent at `url`."""
    return AgentCard(
        name="Text reviewer",
        description="Reviews a text: its length, its sources, and the claims that lack one.",
        version="1.0.0",
        supported_interfaces=[
            AgentInterface(url=f"{url}{path}", protocol_binding=binding, protocol_version=version)
            for version in ("1.0", "0.3")
            for path, binding in (("/rpc", "JSONRPC"), ("/rest", "HTTP+JSON"))
        ],
        capabilities=AgentCapabilities(streaming=True),
        default_input_modes=["text/plain", "application/json"],
        default_output_modes=["text/plain", "application/json"],
        skills=[
            AgentSkill(
                id="review_text",
                name="Review a text",
                description="Checks a text: counts, sources, and which of its claims name no source.",
                tags=["review", "fact-check", "sources", "claims", "proofreading"],
                examples=["Check this paragraph for claims without a source: ..."],
            )
        ],
    )


def agent_app(url: str, log: ExecutionLog, *, pace_s: float) -> Starlette:
    """Put the agent's routes together."""
    card = agent_card(url)
    handler = OnceHandler(
        agent_executor=Reviewer(log, pace_s=pace_s),
        task_store=InMemoryTaskStore(),
        agent_card=card,
        interrupted_task_timeout=600,
    )

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


class AnnouncingServer(uvicorn.Server):
    """Prints where it listens, once it answers."""

    def __init__(self, config: uvicorn.Config, url: str) -> None:
        super().__init__(config)
        self._url = url

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print(json.dumps({"url": self._url}), flush=True)


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(description="A text reviewer that speaks A2A.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True, help="0 takes a free one")
    parser.add_argument("--log", type=Path, help="file to which executions are appended, as JSON lines")
    parser.add_argument("--pace", type=float, default=0.1, help="seconds between two pieces of news")
    options = parser.parse_args()
    # The protocol must be named: asyncio switches Nagle's algorithm off (40 ms an answer) only where it is TCP's.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((options.host, options.port))
    url = f"http://{options.host}:{listening.getsockname()[1]}"
    app = agent_app(url, ExecutionLog(options.log), pace_s=options.pace)
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2)
    AnnouncingServer(config, url).run(sockets=[listening])


if __name__ == "__main__":
    main()
