"""A2A 0.3 over HTTP+JSON, with errors that its clients understand.

The SDK's routes are used but for how they end badly: it answers in the form of 1.0, in which a client of 0.3 finds no
code, and where a stream cannot begin it breaks the connection off instead of answering. Both methods that are replaced
are private to the SDK, and pinned by tests.
"""

from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from functools import partial
from typing import Any

import orjson
import structlog
from a2a.compat.v0_3.rest_adapter import REST03Adapter
from a2a.server.context import ServerCallContext
from a2a.server.request_handlers import RequestHandler
from a2a.server.routes.common import ServerCallContextBuilder
from a2a.utils.error_handlers import build_rest_error_payload
from a2a.utils.errors import JSON_RPC_ERROR_CODE_MAP, A2AError, InternalError, InvalidRequestError
from google.protobuf.json_format import ParseError
from pydantic import ValidationError
from sse_starlette import EventSourceResponse
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .push03 import OldPushes

log = structlog.get_logger()

_CODES = frozenset({-32700, -32600, -32601, -32602, -32603, *range(-32007, -32000)})
"""What 0.3 knows (A2A 0.3, section 8); what came with 1.0 is an internal error to it."""


def old_rest_routes(handler: RequestHandler, contexts: ServerCallContextBuilder) -> list[Route]:
    """Return the routes of A2A 0.3 over HTTP+JSON."""
    adapter = _OldRest(handler, contexts)
    endpoints = {**adapter.routes(), **adapter.pushes(OldPushes(handler))}
    return [Route(path, endpoint, methods=[method]) for (path, method), endpoint in endpoints.items()]


class _OldRest(REST03Adapter):
    def pushes(self, pushes: OldPushes) -> dict[tuple[str, str], Callable[[Request], Awaitable[Response]]]:
        """Return the routes of push notification configurations."""
        return {key: partial(self._handle_request, method) for key, method in pushes.methods().items()}

    async def _handle_request(
        self, method: Callable[[Request, ServerCallContext], Awaitable[Any]], request: Request
    ) -> Response:
        try:
            return JSONResponse(await method(request, self._context_builder.build(request)))
        except ClientDisconnect:
            raise
        except Exception as error:
            return _refusal(error)

    async def _handle_streaming_request(
        self, method: Callable[[Request, ServerCallContext], AsyncIterable[Any]], request: Request
    ) -> Response:
        try:
            await request.body()  # cannot be read any more once the answer has begun
            events = aiter(method(request, self._context_builder.build(request)))
            first = await anext(events)
        except ClientDisconnect:
            raise
        except Exception as error:
            return _refusal(error)

        async def written() -> AsyncGenerator[str]:
            yield orjson.dumps(first).decode()
            try:
                async for event in events:
                    yield orjson.dumps(event).decode()
            except A2AError as error:
                yield orjson.dumps(_body(error)).decode()

        return EventSourceResponse(written())


def _refusal(error: Exception) -> Response:
    body = _body(error)
    return JSONResponse(body, status_code=body["error"]["code"])


def _body(error: Exception) -> dict[str, Any]:
    """Return the error in both forms: `code` and `message` at the top are those of 0.3."""
    if isinstance(error, (ParseError, ValidationError, ValueError)):
        known: A2AError = InvalidRequestError(f"the request is not one of A2A 0.3: {error}"[:500])
    elif isinstance(error, A2AError):
        known = error
    else:
        log.exception("a2a_request_failed", exc_info=error)
        known = InternalError("the hub failed; its log says why")
    code = JSON_RPC_ERROR_CODE_MAP.get(type(known), -32603)
    return {
        "code": code if code in _CODES else -32603,
        "message": str(known),
        **build_rest_error_payload(known),
    }
