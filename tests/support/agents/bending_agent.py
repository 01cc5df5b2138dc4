"""Agents that bend A2A in the ways real servers do, each under a path of its own, written straight on Starlette.

| path       | what it does                                                                                            |
|------------|---------------------------------------------------------------------------------------------------------|
| /naive     | answers SUBMITTED at once, times without a zone, never streams (as fasta2a does)                        |
| /kinds     | a 1.0 stream whose events after the first are bare 0.3 objects, ids `uuid:uuid`, no subscription        |
|            | (as `langgraph dev` does)                                                                               |
| /cut       | its stream is cut in the middle of an event; a subscription brings the rest                             |
| /cut03     | the same in 0.3: the subscription begins without a snapshot, only GetTask has it all                    |
| /mute      | its stream names the task and then is silent, while GetTask says completed                              |
| /unheard   | asks; the stream of the answer is silent, while GetTask says completed                                  |
| /loose     | lower-case enums, snake_case names, a bare string for a message, an artifact without an id              |
| /history   | completes with nothing but a history                                                                    |
| /flood     | artifact chunks without end                                                                             |
| /amnesiac  | names a task and does not know it afterwards                                                            |
| /old       | knows the methods of 0.3 only, whatever its card says                                                   |
| /denied    | 401 unless the header `X-Key` is `open sesame`                                                          |
| /busy      | 503                                                                                                     |
| /page      | an HTML page for every answer                                                                           |
| /slash/    | redirects `/slash` to `/slash/`                                                                         |
| /endless   | a stream that says `working` and nothing more                                                           |
| /late      | names its task after 0.4 s                                                                              |
| /signin    | wants the person to sign in first                                                                       |
| /echo      | answers with what was sent                                                                              |

Odd cards, and what is none, are under `/cards/`: see `odd_card`.
`GET /journal` returns every request that came in.
"""

import argparse
import asyncio
import json
import socket
from collections.abc import AsyncGenerator
from typing import Any
from uuid import uuid4

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

Shape = dict[str, Any]
JOURNAL: list[Shape] = []
ASKED: dict[str, int] = {}
NEVER = asyncio.Event()


def task(task_id: str, state: str, **more: Any) -> Shape:
    return {"id": task_id, "contextId": f"context-of-{task_id}", "status": {"state": state}, **more}


def text(*words: str) -> list[Shape]:
    return [{"text": word} for word in words]


def artifact(*words: str, artifact_id: str = "a") -> Shape:
    return {"artifactId": artifact_id, "parts": text(*words)}


def status_event(task_id: str, state: str) -> Shape:
    return {"statusUpdate": {"taskId": task_id, "contextId": "c", "status": {"state": state}}}


def chunk(task_id: str, word: str, *, append: bool) -> Shape:
    update = {"taskId": task_id, "contextId": "c", "artifact": artifact(word), "append": append}
    return {"artifactUpdate": update}


class Stream:
    """Writes a JSON-RPC stream."""

    def __init__(self, request_id: Any) -> None:
        self._id = request_id

    def __call__(self, result: Shape) -> bytes:
        return b"data: " + json.dumps({"jsonrpc": "2.0", "id": self._id, "result": result}).encode() + b"\n\n"


async def naive(method: str, params: Shape, _: Stream) -> Any:
    zoneless = "2026-11-20T10:00:00.123456"
    if method == "SendMessage":
        made = task(str(uuid4()), "TASK_STATE_SUBMITTED")
        made["status"]["timestamp"] = zoneless
        return made | {"kind": "task"}
    if method != "GetTask":
        raise LookupError(method)
    ASKED[params["id"]] = ASKED.get(params["id"], 0) + 1
    done = ASKED[params["id"]] > 2
    shaped = task(params["id"], "TASK_STATE_COMPLETED" if done else "TASK_STATE_WORKING")
    shaped["status"]["timestamp"] = zoneless
    return shaped | ({"artifacts": [artifact("forty-two")]} if done else {})


async def kinds(method: str, params: Shape, stream: Stream) -> Any:
    if method == "SendStreamingMessage":
        task_id = f"{uuid4()}:{uuid4()}"
        legacy = {"taskId": task_id, "contextId": "c"}
        working: Shape = {"state": "working", "message": {"kind": "message", "role": "agent", "messageId": "m"}}
        working["message"] |= {"parts": [{"kind": "text", "text": "thinking"}]}
        made = {"artifactId": "a", "parts": [{"kind": "text", "text": "forty-two"}]}
        return [
            stream({"task": task(task_id, "TASK_STATE_SUBMITTED")}),
            stream({"kind": "status-update", **legacy, "status": working, "final": False}),
            stream({"kind": "artifact-update", **legacy, "artifact": made}),
            stream({"kind": "status-update", **legacy, "status": {"state": "completed"}, "final": True}),
        ]
    raise LookupError(method)


async def cut(method: str, params: Shape, stream: Stream) -> Any:
    if method == "SendStreamingMessage":
        task_id = str(uuid4())
        return [
            stream({"task": task(task_id, "TASK_STATE_WORKING")}),
            stream(chunk(task_id, "one", append=False)),
            stream(chunk(task_id, "two", append=True))[:60],
            ConnectionError,
        ]
    if method == "SubscribeToTask":
        snapshot = task(params["id"], "TASK_STATE_WORKING", artifacts=[artifact("one", "two")])
        return [
            b": still there\n\n",
            stream({"task": snapshot}),
            stream(chunk(params["id"], "three", append=True)),
            stream(status_event(params["id"], "TASK_STATE_COMPLETED")),
        ]
    raise LookupError(method)


async def cut03(method: str, params: Shape, stream: Stream) -> Any:
    if method == "message/stream":
        made: Shape = {"kind": "task", "id": str(uuid4()), "contextId": "c", "status": {"state": "working"}}
        return [stream(made), ConnectionError]
    ids = {"taskId": params["id"], "contextId": "c"}
    late = {"artifactId": "a", "parts": [{"kind": "text", "text": "three"}]}
    if method == "tasks/resubscribe":
        return [
            stream({"kind": "artifact-update", **ids, "artifact": late, "append": True}),
            stream({"kind": "status-update", **ids, "status": {"state": "completed"}, "final": True}),
        ]
    if method == "tasks/get":
        whole = [{"kind": "text", "text": word} for word in ("one", "two", "three")]
        made = {"artifactId": "a", "parts": whole}
        done: Shape = {"kind": "task", "id": params["id"], "contextId": "c", "status": {"state": "completed"}}
        return done | {"artifacts": [made]}
    raise LookupError(method)


async def mute(method: str, params: Shape, stream: Stream) -> Any:
    if method == "SendStreamingMessage":
        return [stream({"task": task(str(uuid4()), "TASK_STATE_WORKING")}), b": heartbeat\n\n", NEVER]
    if method == "GetTask":
        return task(params["id"], "TASK_STATE_COMPLETED", artifacts=[artifact("forty-two")])
    raise LookupError(method)


async def unheard(method: str, params: Shape, stream: Stream) -> Any:
    if method == "GetTask":
        return task(params["id"], "TASK_STATE_COMPLETED", artifacts=[artifact("forty-two")])
    if params["message"].get("taskId"):
        return [b": heartbeat\n\n", NEVER]
    asking = task("unheard", "TASK_STATE_INPUT_REQUIRED")
    asking["status"]["message"] = {"messageId": "q", "role": "ROLE_AGENT", "parts": text("and?")}
    return [stream({"task": asking})]


async def loose(method: str, params: Shape, stream: Stream) -> Any:
    made = {"name": "answer", "parts": ["forty-two", {"type": "sound", "hum": 1}]}
    status: Shape = {"state": "Completed", "message": "there you are", "timestamp": "yesterday"}
    return {"task": {"id": "t", "context_id": "c", "status": status, "artifacts": [made]}}


async def history(method: str, params: Shape, stream: Stream) -> Any:
    said = {"messageId": "m", "role": "ROLE_AGENT", "parts": text("forty-two")}
    done = task("t", "TASK_STATE_COMPLETED", history=[{**params["message"]}, said] if "message" in params else [said])
    return {"task": done} if method == "SendMessage" else done


async def flood(method: str, params: Shape, stream: Stream) -> Any:
    if method == "SendStreamingMessage":
        first = stream({"task": task("flood", "TASK_STATE_WORKING")})
        return [first, *(stream(chunk("flood", "x" * 10_000, append=n > 0)) for n in range(1000)), NEVER]
    return task(params["id"], "TASK_STATE_CANCELED")


async def amnesiac(method: str, params: Shape, stream: Stream) -> Any:
    if method == "SendMessage":
        return {"task": task(str(uuid4()), "TASK_STATE_WORKING")}
    raise KeyError(params["id"])


async def old(method: str, params: Shape, stream: Stream) -> Any:
    if method != "message/send":
        raise LookupError(method)
    words = [part.get("text", "") for part in params["message"]["parts"]]
    return {"kind": "message", "messageId": "m", "role": "agent", "parts": [{"kind": "text", "text": words[0]}]}


async def echo(method: str, params: Shape, stream: Stream) -> Any:
    said = params["message"]
    context = said.get("contextId", "context-of-echo")
    return {"message": {"messageId": "m", "role": "ROLE_AGENT", "contextId": context, "parts": said["parts"]}}


async def endless(method: str, params: Shape, stream: Stream) -> Any:
    if method == "SendStreamingMessage":
        return [stream({"task": task("endless", "TASK_STATE_WORKING")}), NEVER]
    if method == "CancelTask":
        return task(params["id"], "TASK_STATE_CANCELED")
    raise LookupError(method)


async def late(method: str, params: Shape, stream: Stream) -> Any:
    if method == "CancelTask":
        return task(params["id"], "TASK_STATE_CANCELED")
    await asyncio.sleep(0.4)
    return {"task": task("late", "TASK_STATE_WORKING")}


async def signin(method: str, params: Shape, stream: Stream) -> Any:
    said = params["message"]
    if not said.get("taskId"):
        waiting = task("signin", "TASK_STATE_AUTH_REQUIRED")
        waiting["status"]["message"] = {"messageId": "q", "role": "ROLE_AGENT", "parts": text("sign in at https://x")}
        return {"task": waiting}
    return {"task": task("signin", "TASK_STATE_COMPLETED", artifacts=[{"artifactId": "a", "parts": said["parts"]}])}


BEHAVIOURS = {
    "naive": naive,
    "kinds": kinds,
    "cut": cut,
    "cut03": cut03,
    "mute": mute,
    "unheard": unheard,
    "loose": loose,
    "history": history,
    "flood": flood,
    "amnesiac": amnesiac,
    "old": old,
    "denied": echo,
    "slash": echo,
    "echo": echo,
    "endless": endless,
    "late": late,
    "signin": signin,
}
STREAMING = {"kinds", "cut", "cut03", "mute", "unheard", "flood", "endless"}


async def rpc(request: Request) -> Response:
    name = request.path_params["name"]
    if name == "slash" and not request.url.path.endswith("/"):
        return RedirectResponse("/slash/", status_code=307)
    body = json.loads(await request.body())
    JOURNAL.append(
        {"agent": name, "method": body["method"], "params": body["params"], "headers": dict(request.headers)}
    )
    match name:
        case "denied" if request.headers.get("x-key") != "open sesame":
            return Response(status_code=401, headers={"WWW-Authenticate": 'Bearer realm="cave"'})
        case "busy":
            return JSONResponse({"error": {"code": 503, "message": "later"}}, status_code=503)
        case "page":
            return HTMLResponse("<!doctype html><title>Welcome</title>")
        case _:
            pass
    stream = Stream(body["id"])
    error: Shape
    try:
        result = await BEHAVIOURS[name](body["method"], body["params"], stream)
    except LookupError as failure:
        unknown_task = isinstance(failure, KeyError)
        error = {"code": -32001 if unknown_task else -32601, "message": "task not found" if unknown_task else "no such"}
        return JSONResponse({"jsonrpc": "2.0", "id": body["id"], "error": error})
    if not isinstance(result, list):
        return JSONResponse({"jsonrpc": "2.0", "id": body["id"], "result": result})

    steps: list[Any] = [*result]

    async def events() -> AsyncGenerator[bytes]:
        for event in steps:
            if event is ConnectionError:
                raise ConnectionError("cut on purpose")
            if isinstance(event, asyncio.Event):
                await event.wait()
                return
            yield event

    return StreamingResponse(events(), media_type="text/event-stream")


def card(request: Request, name: str, **more: Any) -> Shape:
    base = str(request.base_url).rstrip("/")
    interface: Shape = {"url": f"{base}/{name}", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}
    if name == "cut03":
        interface["protocolVersion"] = "0.3"
    return {
        "name": name,
        "description": "bends",
        "version": "1",
        "supportedInterfaces": [interface],
        "capabilities": {"streaming": name in STREAMING},
        "defaultInputModes": ["text/plain"],
        "defaultOutputModes": ["text/plain"],
        "skills": [{"id": "do", "name": "do", "description": "does", "tags": ["x"]}],
        **more,
    }


async def agent_card(request: Request) -> Response:
    JOURNAL.append({"agent": request.path_params["name"], "method": "card", "headers": dict(request.headers)})
    return JSONResponse(card(request, request.path_params["name"]))


async def odd_card(request: Request) -> Response:
    base, name = str(request.base_url).rstrip("/"), request.path_params["name"]
    match name:
        case "html":
            return HTMLResponse("<!doctype html><html><body>Our company</body></html>")
        case "big":

            async def big() -> AsyncGenerator[bytes]:
                yield b'{"name": "big", "description": "'
                for _ in range(20):
                    yield b"x" * 1024 * 1024
                yield b'"}'

            return StreamingResponse(big(), media_type="application/json")
        case "list":
            return JSONResponse([1, 2])
        case "nameless":
            return JSONResponse({"skills": [], "capabilities": {}})
        case "future":
            interface = {"url": f"{base}/echo", "protocolBinding": "JSONRPC", "protocolVersion": "2.0"}
            return JSONResponse(card(request, "future", supportedInterfaces=[interface]))
        case "grpc":
            interface = {"url": "127.0.0.1:50051", "protocolBinding": "GRPC", "protocolVersion": "1.0"}
            return JSONResponse(card(request, "grpc", supportedInterfaces=[interface]))
        case "redirect-in":
            return RedirectResponse(f"{base}/echo/.well-known/agent-card.json")
        case "redirect-out":
            return RedirectResponse("http://127.0.0.2:9/card.json")
        case "loop":
            return RedirectResponse(f"{base}/cards/loop")
        case "locked":
            return Response(status_code=401)
        case "slow":
            await NEVER.wait()
            return Response()
        case "elsewhere":
            interface = {"url": "http://127.0.0.2:9/rpc", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}
            return JSONResponse(card(request, "elsewhere", supportedInterfaces=[interface]))
        case _:
            anywhere = f"http://0.0.0.0:{request.base_url.port}/echo"
            interface = {"url": anywhere, "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}
            return JSONResponse(card(request, "echo", supportedInterfaces=[interface]))


async def journal(_: Request) -> Response:
    return JSONResponse(JOURNAL)


APP = Starlette(
    routes=[
        Route("/journal", journal),
        Route("/cards/{name}", odd_card),
        Route("/{name}/", rpc, methods=["POST"]),
        Route("/{name}/.well-known/agent-card.json", agent_card),
        Route("/{name}", rpc, methods=["POST"]),
    ]
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    parser.add_argument("--certificate", help="a file with key and certificate: speak TLS")
    options = parser.parse_args()
    listening = socket.create_server(("127.0.0.1", options.port))
    scheme = "https" if options.certificate else "http"
    url = f"{scheme}://127.0.0.1:{listening.getsockname()[1]}"
    config = uvicorn.Config(
        APP,
        log_level="critical",
        timeout_graceful_shutdown=1,
        ssl_certfile=options.certificate,
        ssl_keyfile=options.certificate,
    )

    class Announcing(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            print(json.dumps({"url": url}), flush=True)

    Announcing(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
