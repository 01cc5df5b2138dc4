"""The entrance of a JSON-RPC endpoint of A2A: what is in order, and nothing special, is answered past the SDK.

A body is read once. Whatever is out of order goes on to the SDK's way as it came, which says what is wrong: no error is
worded here. So does what an error comes of: there it is the same message again, and gives the same task or error.
"""

from typing import Any, cast

import orjson
import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from interhub.adapters import AdapterError, Principal
from interhub.agent_cards import Json
from interhub.hub.errors import HubError
from interhub.hub.faces.http import replay, while_connected
from interhub.hub.faces.jsonrpc import read_request
from interhub.registry import RegistryError

from .handler import HubHandler
from .plain import plain_answer, plain_message, plain_task

log = structlog.get_logger()

PATIENCE_S = 0.5
"""How long an end is waited for before it is looked whether the caller still does."""

_TYPES = frozenset({b"application/json", b"application/a2a+json"})
_PARAMS = frozenset({"message", "configuration", "metadata"})
_CONFIGURATION = frozenset({"returnImmediately", "acceptedOutputModes"})


class A2aEntrance:
    """An ASGI application in front of another that serves the endpoint in full."""

    def __init__(self, app: ASGIApp, handler: HubHandler) -> None:
        self._app = app
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if not _is_plain(scope):
            await self._app(scope, receive, send)
            return
        message = await receive()
        if message["type"] == "http.request" and not message.get("more_body", False):
            answer = await self._answer(scope, receive, message.get("body", b""))
            if answer is not None:
                await _send(answer, send)
                return
        await self._app(scope, replay([message], receive), send)

    async def _answer(self, scope: Scope, receive: Receive, body: bytes) -> bytes | None:
        request = _request(body)
        if request is None:
            return None
        method, number, params = request
        principal: Principal = scope["state"]["principal"]
        agent_id: str = scope["path_params"].get("agent_id", "")
        facts: dict[str, object] = scope["state"].setdefault("facts", {})
        try:
            if method == "SendMessage":
                result = await self._send_message(principal, agent_id, params, receive, facts)
            else:
                result = await self._get_task(principal, agent_id, params, facts)
        except (HubError, RegistryError, AdapterError) as error:
            log.debug("a2a_long_way", method=method, why=str(error))
            return None
        if result is None:
            return None
        facts.update(a2a=method, a2a_version="1.0")
        return orjson.dumps({"jsonrpc": "2.0", "id": number, "result": result})

    async def _send_message(
        self, principal: Principal, agent_id: str, params: dict[str, Any], receive: Receive, facts: dict[str, object]
    ) -> dict[str, Json] | None:
        message, metadata, wanted = params.get("message"), params.get("metadata", {}), params.get("configuration", {})
        if not params.keys() <= _PARAMS or not isinstance(metadata, dict) or not isinstance(wanted, dict):
            return None
        configuration = cast("dict[str, Json]", wanted)
        if not configuration.keys() <= _CONFIGURATION or configuration.get("returnImmediately", False) is not False:
            return None
        read = plain_message(message)
        if read is None:
            return None
        run = await self._handler.begin_plainly(principal, agent_id, read, cast("dict[str, Json]", metadata))
        if run is None:
            return None
        facts.update(run_id=run.id)
        ended = await self._handler.settled(principal, run.id, timeout_s=PATIENCE_S)
        if not (ended.state.ended or ended.state.interrupted):
            waited = await while_connected(receive, lambda: self._handler.settled(principal, run.id))
            ended = waited or ended
        if ended.as_message and ended.state.ended:
            return {"message": plain_answer(ended)}
        return {"task": plain_task(ended, await self._handler.history(principal, ended))}

    async def _get_task(
        self, principal: Principal, agent_id: str, params: dict[str, Any], facts: dict[str, object]
    ) -> dict[str, Json] | None:
        task_id = params.get("id")
        if params.keys() != {"id"} or not isinstance(task_id, str) or not task_id:
            return None
        run = await self._handler.found(principal, agent_id, task_id)
        facts.update(run_id=run.id)
        return plain_task(run, await self._handler.history(principal, run))


def _is_plain(scope: Scope) -> bool:
    """Whether a request's headers are in order, of version 1.0, and ask for nothing special."""
    if scope["method"] != "POST" or scope["query_string"]:
        return False
    version = kind = b""
    for name, value in scope["headers"]:
        if name == b"a2a-version":
            version = value if not version else b"twice"
        elif name == b"content-type":
            kind = value
        elif name == b"a2a-extensions":
            return False
    return version == b"1.0" and kind.partition(b";")[0].strip() in _TYPES


def _request(body: bytes) -> tuple[str, int | str, dict[str, Any]] | None:
    request = read_request(body)
    if request is None or request.keys() != {"jsonrpc", "id", "method", "params"}:
        return None
    method, params = request["method"], request["params"]
    if method not in ("SendMessage", "GetTask") or not isinstance(params, dict):
        return None
    return method, request["id"], cast("dict[str, Any]", params)


async def _send(body: bytes, send: Send) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    start: Message = {"type": "http.response.start", "status": 200, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": body})
