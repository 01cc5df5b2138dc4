"""The least that can answer A2A, and the least that can pass it on: `bare_a2a.py agent` and `bare_a2a.py relay URL`.

Both print their address and serve until they are stopped. Floors for `a2a.py`.
"""

import asyncio
import socket
import sys

import httpx
import orjson
import uvicorn
from starlette.types import Receive, Scope, Send

CARD = {
    "name": "bare",
    "description": "Answers at once",
    "version": "1",
    "capabilities": {"streaming": True},
    "defaultInputModes": ["text/plain"],
    "defaultOutputModes": ["text/plain"],
    "skills": [{"id": "answer", "name": "answer", "description": "answer anything", "tags": ["bench"]}],
}
_ended = {"id": "t1", "contextId": "c1", "status": {"state": "TASK_STATE_COMPLETED"}}
JSON = [(b"content-type", b"application/json")]
EVENTS = [(b"content-type", b"text/event-stream")]


async def body_of(receive: Receive) -> bytes:
    """Read a request's body."""
    pieces: list[bytes] = []
    while True:
        message = await receive()
        pieces.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(pieces)


async def answer(send: Send, body: bytes, headers: list[tuple[bytes, bytes]] = JSON) -> None:
    """Send a whole answer."""
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def agent(url: str) -> object:
    """An A2A 1.0 agent that answers every message with a task that has ended."""
    interfaces = [{"url": url + "/", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}]
    card = orjson.dumps({**CARD, "supportedInterfaces": interfaces})

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["method"] == "GET":
            await answer(send, card)
            return
        request = orjson.loads(await body_of(receive))
        said = {"jsonrpc": "2.0", "id": request["id"], "result": {"task": _ended}}
        if request["method"] == "SendStreamingMessage":
            await answer(send, b"data: " + orjson.dumps(said) + b"\n\n", EVENTS)
        else:
            await answer(send, orjson.dumps(said))

    return app


def relay(target: str) -> object:
    """Passes bodies on and back, and looks at nothing."""
    client = httpx.AsyncClient(limits=httpx.Limits(max_connections=64, max_keepalive_connections=64))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = {"content-type": "application/json", "a2a-version": "1.0"}
        found = await client.post(target, content=await body_of(receive), headers=headers)
        await answer(send, found.content)

    return app


async def main() -> None:
    # Named TCP, so that asyncio turns off Nagle's algorithm: it does not for a socket of protocol 0.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    app = agent(url) if sys.argv[1] == "agent" else relay(sys.argv[2])
    config = uvicorn.Config(app, log_level="error", lifespan="off")  # type: ignore[arg-type]  # our own ASGI callables
    print(url, flush=True)
    await uvicorn.Server(config).serve([listener])


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(main())
