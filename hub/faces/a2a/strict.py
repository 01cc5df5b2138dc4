"""What a request must be like before the SDK reads it.

The SDK takes any content type, answers half of what is not JSON with an internal error and its text, reads a state that
it does not know as none, and serves the methods of 0.3 to callers of 1.0. Refused here, as the specification wants it.
"""

import re
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, cast

import orjson
from a2a import types as a2a
from a2a.utils.error_handlers import build_rest_error_payload
from a2a.utils.errors import ContentTypeNotSupportedError, InvalidParamsError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from interhub.hub.errors import BadRequest
from interhub.hub.faces.refusals import refusal

from .cards import asked_version

Endpoint = Callable[[Request], Awaitable[Response]]

_STATES: frozenset[object] = frozenset({*a2a.TaskState.keys(), *a2a.TaskState.values(), None})
_PYDANTIC = re.compile(rb' \[type=.*?\](?=\\n|")|\\n *For further information visit [^\\"]*')
"""What pydantic adds to its messages for those who write Python, in a JSON string."""


class StrictRpc:
    """A JSON-RPC endpoint that refuses what is not JSON, not of the caller's version, or not a filter."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one request (ASGI 3)."""
        request = Request(scope, receive)
        response = await self._refused(request)
        if response is None:
            response = await _mended(request, await self._endpoint(request))
        await response(scope, receive, send)

    async def _refused(self, request: Request) -> Response | None:
        raw = await request.body()
        if wrong := _wrong_type(request):
            return _rpc_error(None, -32005, wrong, reason="CONTENT_TYPE_NOT_SUPPORTED", status=415)
        try:
            body = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            return _rpc_error(None, -32700, f"the request is not JSON: {error}")
        if not isinstance(body, dict):
            return None
        asked = cast("dict[str, Any]", body)
        method, params = asked.get("method"), asked.get("params")
        if isinstance(method, str) and "/" in method and asked_version(request).startswith("1"):
            what = f"{method[:60]!r} is a method of A2A 0.3; the request says that it is of {asked_version(request)}"
            return _rpc_error(asked.get("id"), -32601, what)
        status = cast("dict[str, object]", params).get("status") if isinstance(params, dict) else None
        if method == "ListTasks" and (why := _no_state(status)):
            return _rpc_error(asked.get("id"), -32602, why, reason="INVALID_PARAMS")
        return None


def strict_rest(route: Route) -> Route:
    """Return a route of HTTP+JSON that refuses what is no JSON or no filter; an empty body is the SDK's to refuse."""
    inner = route.endpoint
    writes, lists = "POST" in (route.methods or ()), route.path.endswith("/tasks")
    if not (writes or lists):
        return route

    async def endpoint(request: Request) -> Response:
        if lists and (why := _no_state(request.query_params.get("status") or None)):
            return _rest_error(InvalidParamsError(why))
        if writes and (raw := await request.body()):
            if wrong := _wrong_type(request):
                return _rest_error(ContentTypeNotSupportedError(wrong))
            try:
                orjson.loads(raw)
            except orjson.JSONDecodeError as error:
                return refusal(request.scope, BadRequest(f"the request is not JSON: {error}"))
        found: Response = await inner(request)
        return found

    return Route(route.path, endpoint, methods=sorted(route.methods or ()))


async def _mended(request: Request, response: Response) -> Response:
    """Return the SDK's answer to a method of 0.3 as 0.3 wants it, without pydantic's own text.

    It says "invalid request" of params that do not fit, where JSON-RPC 2.0 says "invalid params" (section 5.1).
    """
    body: bytes = getattr(response, "body", b"")
    mended = _PYDANTIC.sub(b"", body)
    if b"-32600" in mended and _is_request_03(orjson.loads(await request.body())):
        said = orjson.loads(mended)
        if said.get("error", {}).get("code") == -32600:
            said["error"] |= {"code": -32602, "message": "Invalid params"}
            mended = orjson.dumps(said)
    # Nothing else of the response depends on its length.
    return response if mended == body else Response(mended, response.status_code, media_type="application/json")


def _is_request_03(body: object) -> bool:
    """Whether a body is a JSON-RPC request of a method of 0.3, whatever its params are."""
    if not isinstance(body, dict):
        return False
    asked = cast("dict[str, Any]", body)
    if asked.get("jsonrpc") != "2.0":
        return False
    request_id, method = asked.get("id"), asked.get("method")
    identified = request_id is None or (isinstance(request_id, (str, int)) and not isinstance(request_id, bool))
    return identified and isinstance(method, str) and "/" in method


def _wrong_type(request: Request) -> str:
    """Say what is wrong with the content type of a body; nothing where none is named."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not kind or kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json")):
        return ""
    return f"a request is application/json or application/a2a+json, not {kind[:60]!r}"


def _no_state(status: object) -> str:
    """Say what is wrong with the state that a list is to be filtered by."""
    if not isinstance(status, Hashable) or status not in _STATES:
        return f"status {str(status)[:60]!r} is none of the states of A2A; TASK_STATE_WORKING, for example, is one"
    return ""


def _rpc_error(request_id: Any, code: int, message: str, *, reason: str = "", status: int = 200) -> Response:
    error: dict[str, Any] = {"code": code, "message": message}
    if reason:
        info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "a2a-protocol.org"}
        error["data"] = [info]
    known = request_id if isinstance(request_id, (str, int)) and not isinstance(request_id, bool) else None
    return JSONResponse({"jsonrpc": "2.0", "id": known, "error": error}, status_code=status)


def _rest_error(error: ContentTypeNotSupportedError | InvalidParamsError) -> Response:
    body = build_rest_error_payload(error)
    status = 415 if isinstance(error, ContentTypeNotSupportedError) else int(body["error"]["code"])
    body["error"]["code"] = status  # the SDK says 400 of both; A2A 1.0, section 5.4 does not
    return JSONResponse(body, status_code=status, media_type="application/a2a+json")
