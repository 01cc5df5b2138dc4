"""An agent that outlives the hubs that call it: an A2A 1.0 server that notes what reaches it and what it does.

The message's text chooses: `work MS` works that long; `flaky MS` is out of reach at first; `ask` asks before it goes
on. Every call has an idempotency key. What has an effect looks at it first, as agents should: the effect of a key is
had once, and told again to whoever sends the message again. The log has `sent`, `effect`, `answered` and `canceled`.
"""

# pyright: basic, reportOptionalMemberAccess=false, reportArgumentType=false
# mypy: ignore-errors
# It runs in its own process; the SDK's protobuf types carry no stubs.

import argparse
import asyncio
import json
import os
import socket
import time
from pathlib import Path

import uvicorn
from a2a.helpers import new_task_from_user_message
from a2a.server.agent_execution import AgentExecutor
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import AgentCapabilities, AgentCard, AgentInterface, AgentSkill, Part, TaskState
from google.protobuf.json_format import MessageToDict
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse

KEY = "interhub.dev/idempotencyKey"


class Lasting(AgentExecutor):
    """Works, and remembers what it has done."""

    def __init__(self, log):
        self.log = os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        self.done = {}

    def write(self, **facts):
        os.write(self.log, (json.dumps({"at": time.time(), **facts}) + "\n").encode())

    async def execute(self, context, event_queue):
        said = context.get_user_input()
        metadata = MessageToDict(context.message.metadata)
        key = metadata.get(KEY, "") or context.message.message_id
        updater = TaskUpdater(event_queue, context.task_id, context.context_id)

        def say(words):
            return updater.new_agent_message([Part(text=words)])

        asked = context.current_task
        if asked is not None and asked.status.state == TaskState.TASK_STATE_INPUT_REQUIRED:
            self.write(event="answered", key=key, task=context.task_id)
            return await updater.complete(say(f"answered: {said}"))
        await event_queue.enqueue_event(new_task_from_user_message(context.message))
        self.write(event="sent", key=key, task=context.task_id, text=said)
        await updater.start_work(say("working"))
        kind, _, given = said.partition(" ")
        if kind == "ask":
            return await updater.requires_input(say("Shall it go on?"))
        ms = int(given.split()[0]) if given.split() and given.split()[0].isdigit() else 0
        known = self.done.get(key)
        if known is None:
            known = self.done[key] = asyncio.ensure_future(self.work(key, ms))
        # Shielded: one task that is cancelled takes nothing from another of the same key.
        return await updater.complete(say(await asyncio.shield(known)))

    async def work(self, key, ms):
        await asyncio.sleep(ms / 1000)
        self.write(event="effect", key=key)
        return f"done {len(self.done)}"

    async def cancel(self, context, event_queue):
        self.write(event="canceled", task=context.task_id)
        updater = TaskUpdater(event_queue, context.task_id, context.context_id)
        await updater.cancel(say_nothing(updater))


def say_nothing(updater):
    return updater.new_agent_message([Part(text="stopped")])


class Flaky:
    """Answers the first sending of a message that says `flaky` with 503, as a busy proxy does."""

    def __init__(self, app):
        self.app = app
        self.seen = set()

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http" or scope["method"] != "POST":
            return await self.app(scope, receive, send)
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        if b'"flaky' in body:
            key = json.loads(body).get("params", {}).get("message", {}).get("messageId", "")
            if key not in self.seen:
                self.seen.add(key)
                return await PlainTextResponse("busy", status_code=503)(scope, receive, send)
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def again():
            return messages.pop() if messages else await receive()

        return await self.app(scope, again, send)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    parser.add_argument("--log", type=Path)
    options = parser.parse_args()
    listening = socket.create_server(("127.0.0.1", options.port), backlog=512)
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    card = AgentCard(
        name="lasting",
        description="Carries out the work.",
        version="1",
        supported_interfaces=[AgentInterface(url=f"{url}/rpc", protocol_binding="JSONRPC", protocol_version="1.0")],
        capabilities=AgentCapabilities(streaming=True),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        skills=[AgentSkill(id="work", name="work", description="carries out the work", tags=["test"])],
    )
    handler = DefaultRequestHandler(
        agent_executor=Lasting(options.log),
        task_store=InMemoryTaskStore(),
        agent_card=card,
        interrupted_task_timeout=60,
    )
    app = Starlette(routes=[*create_agent_card_routes(card), *create_jsonrpc_routes(handler, "/rpc")])
    server = uvicorn.Server(uvicorn.Config(Flaky(app), log_level="error", timeout_graceful_shutdown=1))
    started = server.startup

    async def startup(sockets=None):
        await started(sockets)
        print(json.dumps({"url": url}), flush=True)

    server.startup = startup
    server.run(sockets=[listening])


if __name__ == "__main__":
    main()
