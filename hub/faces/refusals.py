"""An error on HTTP in the form of the face it was asked of: a problem (RFC 9457), JSON-RPC, or A2A over REST."""

import re
from collections.abc import Mapping
from enum import Enum
from http import HTTPStatus

import orjson
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ExceptionHandler, Scope

from interhub.agent_cards import Json
from interhub.hub.errors import BadRequest, Mistake, Problem, Status, Unauthenticated, problem_of

PROBLEM = "application/problem+json"
CHALLENGE = 'Bearer realm="interhub"'
"""The scheme that every protected path takes (RFC 9110, section 11.6.1; RFC 6750, section 3)."""

_AGENT_FACE = re.compile(r"/agents/[^/]+/(mcp|a2a)(/.*)?$")


class Form(Enum):
    """How a face says an error."""

    PROBLEM = "problem"
    JSONRPC = "jsonrpc"
    A2A_REST = "a2a_rest"


class Unreadable(BadRequest):
    """A request body or query does not have the form that its operation documents; each mistake names its place."""

    def __init__(self, what: str, mistakes: tuple[Mistake, ...]) -> None:
        super().__init__(what, "")
        self.args = (what, mistakes)
        self.mistakes = mistakes

    def __str__(self) -> str:
        return f"{self.what}: {'; '.join(str(mistake) for mistake in self.mistakes)}"


def form_of(path: str) -> Form:
    """Return how errors are said on a path."""
    face, rest = "", ""
    if path.startswith("/agents/"):
        found = _AGENT_FACE.match(path)
        if found is not None:
            face, rest = found[1], found[2] or ""
    elif path.startswith("/a2a"):
        face, rest = "a2a", path.removeprefix("/a2a")
    elif path.startswith("/mcp"):
        face, rest = "mcp", path.removeprefix("/mcp")
    if rest and not rest.startswith("/"):
        return Form.PROBLEM  # /mcpx is no face
    match face:
        case "mcp":
            return Form.JSONRPC
        case "a2a":
            return Form.A2A_REST if rest == "/rest" or rest.startswith("/rest/") else Form.JSONRPC
        case _:
            return Form.PROBLEM


def refusal(scope: Scope, error: BaseException, *, headers: Mapping[str, str] | None = None) -> Response:
    """Return the response that says an error to the caller of a request."""
    problem = problem_of(error)
    if isinstance(error, Unreadable):
        details = {"mistakes": [{"where": mistake.where, "what": mistake.what} for mistake in error.mistakes]}
        problem = Problem(status=problem.status, message=problem.message, details=details)
    given = dict(headers or {})
    if isinstance(error, Unauthenticated):
        sent = Headers(scope=scope)
        wrong = "authorization" in sent or "x-api-key" in sent
        given["WWW-Authenticate"] = f'{CHALLENGE}, error="invalid_token"' if wrong else CHALLENGE
    return refuse(scope, problem, headers=given)


def refuse(scope: Scope, problem: Problem, *, headers: Mapping[str, str] | None = None) -> Response:
    """Return the response that says a problem, in the form of the path's face."""
    status = problem.status
    media_type = "application/json"
    body: dict[str, Json]
    match form_of(scope["path"]):
        case Form.JSONRPC:
            # The body was not read, so the request's id is unknown: null (JSON-RPC 2.0, section 5).
            said: dict[str, Json] = {"code": status.jsonrpc, "message": problem.message, "data": _details(problem)}
            body = {"jsonrpc": "2.0", "id": None, "error": said}
        case Form.A2A_REST:
            # A2A 1.0, section 11.6: the error model of google.rpc.
            said = {
                "code": status.http,
                "status": _RPC_STATUS.get(status.http, "UNKNOWN"),
                "message": problem.message,
                "details": _details(problem),
            }
            body = {"error": said}
        case Form.PROBLEM:
            media_type = PROBLEM
            body = problem_body(scope, problem)
    return Response(orjson.dumps(body), status_code=status.http, headers=headers, media_type=media_type)


def problem_body(scope: Scope, problem: Problem) -> dict[str, Json]:
    """Return an error as RFC 9457 writes it; `code` is the machine's name of it, and `mistakes` are the places."""
    status = problem.status
    body: dict[str, Json] = {
        "type": f"urn:interhub:problem:{status.reason.lower().replace('_', '-')}",
        "title": HTTPStatus(status.http).phrase,
        "status": status.http,
        "detail": problem.message,
        "code": status.reason,
        "instance": scope["path"],
    }
    request_id = scope.get("state", {}).get("request_id")
    if request_id:
        body["request_id"] = request_id
    return {**body, **problem.details}


def http_problem(status: int, detail: str = "") -> Problem:
    """Return what an HTTP status alone says: 404 for no such path, 405, 413, 421."""
    reason = HTTPStatus(status).name
    jsonrpc = -32600 if status < 500 else -32603
    return Problem(
        status=Status(http=status, jsonrpc=jsonrpc, reason=reason), message=detail or HTTPStatus(status).phrase
    )


def exception_handlers() -> dict[type[Exception] | int, ExceptionHandler]:
    """Return the handlers that a Starlette application needs so that its own refusals have the faces' form."""
    return {HTTPException: _say_http_error, Exception: _say_error}


async def _say_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = error.detail
    if error.status_code == 404 and detail == HTTPStatus.NOT_FOUND.phrase:
        detail = f"there is nothing at {request.url.path}"
    elif error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        detail = f"{request.method} is not possible here" + (f"; {allowed} is" if allowed else "")
    return refuse(request.scope, http_problem(error.status_code, detail), headers=error.headers)


async def _say_error(request: Request, error: Exception) -> Response:
    return refusal(request.scope, error)


def _details(problem: Problem) -> list[Json]:
    """Return google.rpc.ErrorInfo (A2A 1.0, section 9.5), ours being the domain."""
    return [
        {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": problem.status.reason,
            "domain": "interhub",
            "metadata": {},
        }
    ]


_RPC_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    409: "FAILED_PRECONDITION",
    413: "INVALID_ARGUMENT",
    421: "PERMISSION_DENIED",
    422: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
