"""An agent on the A2A SDK 0.3.26's own server with the four capabilities of the conformance suite."""

# pyright: basic, reportOptionalMemberAccess=false, reportArgumentType=false, reportMissingImports=false, reportAttributeAccessIssue=false, reportCallIssue=false
# mypy: ignore-errors
# It runs in an environment of its own, with an SDK whose types are other ones than those installed here.

import argparse
import asyncio
import json
import socket
from pathlib import Path

import uvicorn
from a2a.server.agent_execution import AgentExecutor
from a2a.server.apps import A2ARESTFastAPIApplication, A2AStarletteApplication
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import AgentCapabilities, AgentCard, AgentInterface, AgentSkill, DataPart, Part, TaskState, TextPart
from a2a.utils import new_task
from starlette.applications import Starlette
from starlette.routing import Mount


class Four(AgentExecutor):
    """Echo, fail, slow and ask."""

    def __init__(self, log):
        self.log = log

    def write(self, **facts):
        with self.log.open("a") as file:
            file.write(json.dumps(facts) + "\n")

    async def execute(self, context, event_queue):
        kind, _, text = context.get_user_input().partition(":")
        key = (context.message.metadata or {}).get("interhub.dev/idempotencyKey", "")
        task = context.current_task
        asked = task is not None and task.status.state == TaskState.input_required
        if task is None:
            task = new_task(context.message)
            await event_queue.enqueue_event(task)
        updater = TaskUpdater(event_queue, task.id, task.context_id)

        def say(words):
            return updater.new_agent_message([Part(root=TextPart(text=words))])

        if asked:
            return await updater.complete(say(context.get_user_input()))
        self.write(event="started", text=text, key=key)
        match kind:
            case "echo":
                await updater.start_work(say("reading"))
                data = [part for part in context.message.parts if isinstance(part.root, DataPart)]
                if data:
                    await updater.add_artifact(data, name="what came")
                await updater.complete(say(text))
            case "fail":
                await updater.failed(say(text))
            case "ask":
                await updater.requires_input(say(f"really {text}?"), final=True)
            case "chunks":
                for n, word in enumerate(text.split()):
                    await updater.add_artifact(
                        [Part(root=TextPart(text=word))], artifact_id="words", append=n > 0, last_chunk=False
                    )
                await updater.complete()
            case _:
                await updater.start_work(say("going slowly"))
                try:
                    await asyncio.sleep(120)
                except asyncio.CancelledError:
                    self.write(event="canceled", key=key)
                    raise
        return None

    async def cancel(self, context, event_queue):
        updater = TaskUpdater(event_queue, context.task_id, context.context_id)
        await updater.cancel()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    parser.add_argument("--log", type=Path)
    options = parser.parse_args()
    listening = socket.create_server(("127.0.0.1", options.port))
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    card = AgentCard(
        name="four of old",
        description="Echo, fail, slow and ask.",
        version="1",
        url=f"{url}/rpc",
        preferred_transport="JSONRPC",
        additional_interfaces=[AgentInterface(url=f"{url}/rest", transport="HTTP+JSON")],
        capabilities=AgentCapabilities(streaming=True),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        skills=[
            AgentSkill(id=name, name=name, description=f"{name}s", tags=["test"])
            for name in ("echo", "fail", "slow", "ask")
        ],
    )
    handler = DefaultRequestHandler(agent_executor=Four(options.log), task_store=InMemoryTaskStore())
    app = Starlette(
        routes=[
            *A2AStarletteApplication(agent_card=card, http_handler=handler).routes(rpc_url="/rpc"),
            Mount("/rest", A2ARESTFastAPIApplication(agent_card=card, http_handler=handler).build()),
        ]
    )
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
    started = server.startup

    async def startup(sockets=None):
        await started(sockets)
        print(json.dumps({"url": url}), flush=True)

    server.startup = startup
    server.run(sockets=[listening])


if __name__ == "__main__":
    main()
