"""An agent on the A2A SDK's own server that shows one skill to everybody, and another to who brings its key."""

# pyright: basic, reportOptionalMemberAccess=false, reportArgumentType=false
# mypy: ignore-errors
# It runs in its own process; the SDK's protobuf types carry no stubs.

import argparse
import json
import socket

import uvicorn
from a2a.server.agent_execution import AgentExecutor
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes, create_rest_routes
from a2a.server.tasks import InMemoryTaskStore
from a2a.types import AgentCapabilities, AgentCard, AgentInterface, AgentSkill
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.routing import Mount


class Silent(AgentExecutor):
    """Nobody calls it."""

    async def execute(self, context, event_queue):
        raise NotImplementedError

    async def cancel(self, context, event_queue):
        raise NotImplementedError


class Keyed:
    """Lets nobody in without the key, but to the card."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        open_to_all = scope["type"] != "http" or scope["path"].startswith("/.well-known/")
        if open_to_all or (b"authorization", b"Bearer open sesame") in scope["headers"]:
            await self.app(scope, receive, send)
        else:
            await JSONResponse({"no": "key"}, 401)(scope, receive, send)


def card_of(url, version, binding, skills):
    path = "/rpc" if binding == "JSONRPC" else "/rest"
    return AgentCard(
        name="two faces",
        description="Shows more to those whom it knows.",
        version="1",
        supported_interfaces=[
            AgentInterface(url=url + path, protocol_binding=binding, protocol_version=version),
        ],
        capabilities=AgentCapabilities(extended_agent_card=True),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        skills=[AgentSkill(id=name, name=name, description=f"{name}s", tags=["test"]) for name in skills],
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    parser.add_argument("--version", default="1.0")
    parser.add_argument("--binding", default="JSONRPC")
    options = parser.parse_args()
    listening = socket.create_server(("127.0.0.1", options.port))
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    public = card_of(url, options.version, options.binding, ["greet"])
    handler = DefaultRequestHandler(
        agent_executor=Silent(),
        task_store=InMemoryTaskStore(),
        agent_card=public,
        extended_agent_card=card_of(url, options.version, options.binding, ["greet", "pay"]),
    )
    app = Starlette(
        middleware=[Middleware(Keyed)],
        routes=[
            *create_agent_card_routes(public),
            *create_jsonrpc_routes(handler, "/rpc", enable_v0_3_compat=True),
            Mount("/rest", routes=create_rest_routes(handler, enable_v0_3_compat=True)),
        ],
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
