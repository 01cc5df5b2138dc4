"""Agents that let in who shows what their cards ask for, and kagent's extension for a human in the loop, on Starlette.

| path          | its card asks for                                                                                    |
|---------------|------------------------------------------------------------------------------------------------------|
| /header       | an API key in the header X-Key (A2A 1.0)                                                             |
| /query        | an API key in the query `key`                                                                        |
| /cookie       | an API key in the cookie `session`                                                                   |
| /bearer       | HTTP Bearer                                                                                          |
| /basic        | HTTP Basic, in a card of 0.3                                                                         |
| /oauth        | OAuth client credentials, scope `read`; every token is taken three times, then no more               |
| /both         | the key in the header and the one in the query together, or Basic                                    |
| /stranger     | OAuth whose token endpoint is at another origin                                                      |
| /mutual       | mutual TLS                                                                                           |
| /moved        | a key, and its interface is at another origin                                                        |
| /approves     | nothing; pauses with two tools to approve, by kagent's extension                                     |
| /questions    | nothing; pauses with questions, by kagent's extension, asked by a nested agent                       |
| /demanding    | nothing; requires an extension that nobody knows                                                     |

Each answers with what came: a message whose one data part holds `headers` and `query`. `POST /token` gives tokens.
`GET /journal` returns all requests.
"""

import argparse
import json
import socket
from base64 import b64decode
from typing import Any
from urllib.parse import parse_qs
from uuid import uuid4

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

Shape = dict[str, Any]
JOURNAL: list[Shape] = []
TOKENS: dict[str, int] = {}
PAUSED: dict[str, Shape] = {}

HITL = "https://kagent.dev/extensions/hitl/v1"


def api_key(location: str, name: str) -> Shape:
    return {"apiKeySecurityScheme": {"location": location, "name": name}}


def oauth(token_url: str) -> Shape:
    return {"oauth2SecurityScheme": {"flows": {"clientCredentials": {"tokenUrl": token_url, "scopes": {"read": ""}}}}}


def needs(*alternatives: Shape) -> list[Shape]:
    return [{"schemes": {name: {"list": scopes} for name, scopes in each.items()}} for each in alternatives]


def security(name: str, base: str) -> Shape:
    key, basic = api_key("header", "X-Key"), {"httpAuthSecurityScheme": {"scheme": "Basic"}}
    match name:
        case "header" | "moved":
            return {"securitySchemes": {"key": key}, "securityRequirements": needs({"key": []})}
        case "query":
            return {"securitySchemes": {"key": api_key("query", "key")}, "securityRequirements": needs({"key": []})}
        case "cookie":
            return {"securitySchemes": {"key": api_key("cookie", "session")}}
        case "bearer":
            bearer = {"httpAuthSecurityScheme": {"scheme": "bearer", "bearerFormat": "JWT"}}
            return {"securitySchemes": {"token": bearer}, "securityRequirements": needs({"token": []})}
        case "basic":
            return {"securitySchemes": {"login": {"type": "http", "scheme": "basic"}}, "security": [{"login": []}]}
        case "oauth":
            return {
                "securitySchemes": {"sso": oauth(f"{base}/token")},
                "securityRequirements": needs({"sso": ["read"]}),
            }
        case "both":
            schemes = {"key": key, "other": api_key("query", "key"), "login": basic}
            return {
                "securitySchemes": schemes,
                "securityRequirements": needs({"key": [], "other": []}, {"login": []}),
            }
        case "stranger":
            return {"securitySchemes": {"sso": oauth("http://localhost:9/token")}}
        case "mutual":
            return {"securitySchemes": {"tls": {"mtlsSecurityScheme": {}}}}
        case _:
            return {}


def admitted(name: str, request: Request) -> bool:
    seen, query = request.headers, request.query_params
    login = "ann:open sesame"
    match name:
        case "header":
            return seen.get("x-key") == "open sesame"
        case "query":
            return query.get("key") == "open sesame"
        case "cookie":
            return request.cookies.get("session") == "open%20sesame"
        case "bearer":
            return seen.get("authorization") == "Bearer open sesame"
        case "basic":
            return b64decode(seen.get("authorization", "").removeprefix("Basic ")).decode() == login
        case "oauth":
            token = seen.get("authorization", "").removeprefix("Bearer ")
            TOKENS[token] = TOKENS.get(token, 0) - 1
            return TOKENS[token] >= 0
        case "both":
            together = seen.get("x-key") == "open sesame" and query.get("key") == "open sesame"
            return together or b64decode(seen.get("authorization", "").removeprefix("Basic ")).decode() == login
        case _:
            return True


async def token(request: Request) -> Response:
    form = {name: values[0] for name, values in parse_qs((await request.body()).decode()).items()}
    JOURNAL.append({"agent": "token", "form": form})
    if request.headers.get("authorization"):
        return JSONResponse({"error": "invalid_client"}, status_code=401)  # it wants the secret in the body
    if (form.get("client_id"), form.get("client_secret"), form.get("scope")) != ("ann", "open sesame", "read"):
        return JSONResponse({"error": "invalid_scope"}, status_code=400)
    made = str(uuid4())
    TOKENS[made] = 3
    return JSONResponse({"access_token": made, "token_type": "Bearer", "expires_in": 3600})


async def card(request: Request) -> Response:
    name = request.path_params["name"]
    base = str(request.base_url).rstrip("/")
    url = f"http://localhost:{request.base_url.port}/{name}" if name == "moved" else f"{base}/{name}"
    said: Shape = {"name": name, "description": name, "version": "1", "skills": [], **security(name, base)}
    if name == "basic":
        return JSONResponse({**said, "url": url, "preferredTransport": "JSONRPC", "protocolVersion": "0.3.0"})
    if name in ("approves", "questions"):
        said["capabilities"] = {"extensions": [{"uri": HITL}]}
    if name == "demanding":
        said["capabilities"] = {"extensions": [{"uri": "https://example.com/secret-handshake", "required": True}]}
    interface = {"url": url, "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}
    return JSONResponse({**said, "supportedInterfaces": [interface]})


async def rpc(request: Request) -> Response:
    name, body = request.path_params["name"], await request.json()
    JOURNAL.append(
        {"agent": name, "method": body["method"], "headers": dict(request.headers), "params": body["params"]}
    )
    if not admitted(name, request):
        return Response("never read to its end", status_code=401)
    if name in ("approves", "questions"):
        return JSONResponse({"jsonrpc": "2.0", "id": body["id"], "result": kagent(name, request, body)})
    came = {"headers": dict(request.headers), "query": dict(request.query_params)}
    message: Shape = {"messageId": str(uuid4()), "role": "ROLE_AGENT", "parts": [{"data": came}]}
    if body["method"].startswith("message/"):
        part = {"kind": "data", "data": came}
        return JSONResponse(
            {
                "jsonrpc": "2.0",
                "id": body["id"],
                "result": {"kind": "message", "messageId": "m", "role": "agent", "parts": [part]},
            }
        )
    return JSONResponse({"jsonrpc": "2.0", "id": body["id"], "result": {"message": message}})


def kagent(name: str, request: Request, body: Shape) -> Shape:
    """Pause, and hold what answers to the rules of its document: each id exactly once, each question answered."""
    task_id = body["params"].get("id") or body["params"]["message"].get("taskId") or str(uuid4())
    task: Shape = {"id": task_id, "contextId": "c"}
    if body["method"] == "GetTask":
        return {**task, "status": PAUSED[task_id]}
    message = body["params"]["message"]
    if task_id not in PAUSED:
        said: Shape = {"messageId": str(uuid4()), "role": "ROLE_AGENT", "parts": [{"text": "A person must decide"}]}
        if request.headers.get("a2a-extensions") == HITL:
            said |= {"extensions": [HITL], "metadata": {HITL: asked(name)}}
        PAUSED[task_id] = {"state": "TASK_STATE_INPUT_REQUIRED", "message": said}
        return {"task": {**task, "status": PAUSED[task_id]}}
    payload = message.get("metadata", {}).get(HITL)
    if HITL not in message.get("extensions", []) or payload is None:
        return {"task": {**task, "status": PAUSED[task_id]}}
    if name == "approves":
        assert sorted(one["id"] for one in payload["approvals"]) == ["approval-1", "approval-2"], payload
    else:
        assert payload["id"] == "child-question", payload
        assert len(payload["answers"]) == 2, payload
    PAUSED[task_id] = {"state": "TASK_STATE_COMPLETED"}
    return {
        "task": {**task, "status": PAUSED[task_id], "artifacts": [{"artifactId": "a", "parts": [{"data": payload}]}]}
    }


def asked(name: str) -> Shape:
    if name == "approves":
        delete = {"id": "approval-1", "call_id": "call-1", "name": "delete_file", "args": {"path": "/tmp/old"}}
        restart = {"id": "approval-2", "call_id": "call-2", "name": "restart", "args": None}
        return {"type": "tool_approval_request", "hint": "Two operations", "tools": [delete, restart]}
    child: Shape = {"id": "child-question", "call_id": "call-3", "name": "ask_user", "args": {}}
    return {
        "type": "ask_user_request",
        "id": "parent-question",
        "questions": [
            {"question": "Which database?", "choices": ["PostgreSQL", "SQLite"], "multiple": False},
            {"question": "Which features?", "choices": ["Caching", "Audit"], "multiple": True},
        ],
        "nested": {"subagent_name": "planner", "task_id": "t", "context_id": "c", "tools": [child]},
    }


async def journal(_: Request) -> Response:
    return JSONResponse(JOURNAL)


APP = Starlette(
    routes=[
        Route("/journal", journal),
        Route("/token", token, methods=["POST"]),
        Route("/{name}/.well-known/agent-card.json", card),
        Route("/{name}", rpc, methods=["POST"]),
    ]
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    listening = socket.create_server(("127.0.0.1", parser.parse_args().port))
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"

    class Announcing(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            print(json.dumps({"url": url}), flush=True)

    Announcing(uvicorn.Config(APP, log_level="critical", timeout_graceful_shutdown=1)).run(sockets=[listening])


if __name__ == "__main__":
    main()
