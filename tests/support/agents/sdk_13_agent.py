"""An agent on the A2A SDK 1.3's own server with the four capabilities of the conformance suite, 1.0 and 0.3.

`kind` in the message's text chooses: `echo`, `fail`, `slow`, `ask`, each followed by a colon and the text.
"""

# pyright: basic, reportOptionalMemberAccess=false, reportArgumentType=false
# mypy: ignore-errors
# It runs in its own process; the SDK's protobuf types carry no stubs.

import argparse
import asyncio
import json
import socket
from pathlib import Path

import uvicorn
from a2a.helpers import new_task_from_user_message
from a2a.server.agent_execution import AgentExecutor
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes, create_rest_routes
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import AgentCapabilities, AgentCard, AgentInterface, AgentSkill, Part, TaskState
from google.protobuf.json_format import MessageToDict
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
        key = MessageToDict(context.message.metadata).get("interhub.dev/idempotencyKey", "")
        updater = TaskUpdater(event_queue, context.task_id, context.context_id)

        def say(words):
            return updater.new_agent_message([Part(text=words)])

        asked = context.current_task
        if asked is None:
            await event_queue.enqueue_event(new_task_from_user_message(context.message))
        elif asked.status.state == TaskState.TASK_STATE_INPUT_REQUIRED:
            return await updater.complete(say(context.get_user_input()))
        self.write(event="started", text=text, key=key)
        match kind:
            case "echo":
                await updater.start_work(say("reading"))
                await updater.complete(say(text))
            case "fail":
                await updater.failed(say(text))
            case "ask":
                await updater.requires_input(say(f"really {text}?"))
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
        await updater.cancel(updater.new_agent_message([Part(text="stopped")]))


async def serve_grpc(handler, address):
    import grpc.aio
    from a2a.compat.v0_3 import a2a_v0_3_pb2_grpc
    from a2a.compat.v0_3.grpc_handler import CompatGrpcHandler
    from a2a.server.request_handlers.grpc_handler import GrpcHandler
    from a2a.types import a2a_pb2_grpc

    server = serve_grpc.server = grpc.aio.server()
    a2a_pb2_grpc.add_A2AServiceServicer_to_server(GrpcHandler(handler), server)
    a2a_v0_3_pb2_grpc.add_A2AServiceServicer_to_server(CompatGrpcHandler(handler), server)
    server.add_insecure_port(address)
    await server.start()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    parser.add_argument("--log", type=Path)
    parser.add_argument("--no-streaming", action="store_true")
    parser.add_argument("--grpc", action="store_true", help="gRPC is all that the card names")
    options = parser.parse_args()
    listening = socket.create_server(("127.0.0.1", options.port))
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    held = socket.socket()  # keeps the port until gRPC shares it
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    held.bind(("127.0.0.1", 0))
    grpc_address = f"127.0.0.1:{held.getsockname()[1]}"
    card = AgentCard(
        name="four",
        description="Echo, fail, slow and ask.",
        version="1",
        supported_interfaces=[
            AgentInterface(url=f"{url}{path}", protocol_binding=binding, protocol_version=version)
            for version in ("1.0", "0.3")
            for path, binding in (("/rpc", "JSONRPC"), ("/rest", "HTTP+JSON"))
        ]
        if not options.grpc
        else [
            AgentInterface(url=grpc_address, protocol_binding="GRPC", protocol_version=version)
            for version in ("1.0", "0.3")
        ],
        capabilities=AgentCapabilities(streaming=not options.no_streaming),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        skills=[
            AgentSkill(id=name, name=name, description=f"{name}s", tags=["test"])
            for name in ("echo", "fail", "slow", "ask")
        ],
    )
    handler = DefaultRequestHandler(
        agent_executor=Four(options.log), task_store=InMemoryTaskStore(), agent_card=card, interrupted_task_timeout=60
    )
    app = Starlette(
        routes=[
            *create_agent_card_routes(card),
            *create_jsonrpc_routes(handler, "/rpc", enable_v0_3_compat=True),
            Mount("/rest", routes=create_rest_routes(handler, enable_v0_3_compat=True)),
        ]
    )
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
    started = server.startup

    async def startup(sockets=None):
        await started(sockets)
        if options.grpc:
            await serve_grpc(handler, grpc_address)
        print(json.dumps({"url": url}), flush=True)

    server.startup = startup
    server.run(sockets=[listening])


if __name__ == "__main__":
    main()
