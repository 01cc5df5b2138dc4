"""One REST operation: its route, the models that parse what comes in, and its place in the OpenAPI document."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

import orjson
from pydantic import TypeAdapter
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from interhub.adapters import AdapterError, Principal
from interhub.agent_cards import Json
from interhub.hub.errors import HubError
from interhub.hub.faces.http import note, principal_of
from interhub.hub.faces.refusals import PROBLEM, refusal
from interhub.registry import RegistryError

from .bodies import read_body, read_query
from .schemas import SCHEMAS, Schema, ref

B = TypeVar("B")
Q = TypeVar("Q")

_REFS = "#/components/schemas/{model}"


@dataclass(frozen=True, kw_only=True)
class Asked(Generic[B, Q]):
    """A request, read."""

    request: Request
    body: B
    query: Q

    @property
    def principal(self) -> Principal:
        """The caller."""
        return principal_of(self.request.scope)

    def path(self, name: str) -> str:
        """Return a part of the path."""
        return cast(str, self.request.path_params[name])


@dataclass(frozen=True, kw_only=True)
class Operation(Generic[B, Q]):
    """What can be asked of one path with one method."""

    name: str
    """Unique; the document's `operationId`, and on the canonical line."""
    method: str
    path: str
    summary: str
    answer: Callable[[Asked[B, Q]], Awaitable[Response]]
    answers: Mapping[int, str]
    """Schema's name by status."""
    refusals: tuple[int, ...] = ()
    """Statuses of problems, besides 400 (where anything is read), 401 and 500."""
    body: TypeAdapter[B] | None = None
    query: TypeAdapter[Q] | None = None
    media_types: tuple[str, ...] = ("application/json",)
    open: bool = False
    """True when no key is needed."""

    def route(self) -> Route:
        """Return the route."""
        return Route(self.path, self._respond, methods=[self.method], name=self.name)

    async def _respond(self, request: Request) -> Response:
        note(request.scope, operation=self.name)
        try:
            body = read_body(self.body, await request.body()) if self.body is not None else None
            query: object = None
            if self.query is not None:
                given = {name: request.query_params.getlist(name) for name in request.query_params}
                query = read_query(self.query, given, self._lists())
            return await self.answer(Asked(request=request, body=cast(B, body), query=cast(Q, query)))
        except (HubError, RegistryError, AdapterError) as error:
            return refusal(request.scope, error)

    def _lists(self) -> frozenset[str]:
        assert self.query is not None
        properties: dict[str, Any] = self.query.json_schema().get("properties", {})
        return frozenset(name for name, schema in properties.items() if schema.get("type") == "array")


def json_response(shaped: Json, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a JSON answer."""
    return Response(
        orjson.dumps(shaped, default=_plain), status_code=status, headers=headers, media_type="application/json"
    )


def json_bytes(shaped: Json) -> bytes:
    """Write JSON."""
    return orjson.dumps(shaped, default=_plain)


def openapi(operations: Sequence[Operation[Any, Any]], *, version: str, url: str) -> dict[str, Json]:
    """Return the OpenAPI 3.1 document of operations."""
    adapters = [(op.name, "validation", op.body) for op in operations if op.body is not None]
    bodies, defined = TypeAdapter.json_schemas(cast("Any", adapters), ref_template=_REFS)
    body_of = {name: schema for (name, _), schema in bodies.items()}
    paths: dict[str, dict[str, Json]] = {}
    for op in operations:
        paths.setdefault(op.path, {})[op.method.lower()] = _described(op, cast("Schema | None", body_of.get(op.name)))
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "interhub",
            "version": version,
            "summary": "The hub's registry and runs.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": url}],
        "security": [{"bearer": []}, {"apiKey": []}],
        "paths": cast("Json", paths),
        "components": {
            "schemas": {**SCHEMAS, **cast("dict[str, Json]", defined.get("$defs", {}))},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "`Authorization: Bearer KEY`"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


def _described(op: Operation[Any, Any], body: Schema | None) -> Json:
    responses: dict[str, Json] = {
        str(status): {
            "description": _STATUS_WORDS[status],
            "content": {media_type: {"schema": ref(name)} for media_type in op.media_types},
        }
        for status, name in op.answers.items()
    }
    reads = op.body is not None or op.query is not None
    refusals = (*((400,) if reads else ()), *(() if op.open else (401,)), *op.refusals)
    for status in sorted(set(refusals) - set(op.answers)):
        content: Json = {PROBLEM: {"schema": ref("Problem")}}
        responses[str(status)] = {"description": _STATUS_WORDS[status], "content": content}
    described: dict[str, Json] = {
        "operationId": op.name,
        "summary": op.summary,
        "parameters": [*_path_parameters(op.path), *_query_parameters(op)],
        "responses": responses,
    }
    if body is not None:
        described["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    if op.open:
        described["security"] = []
    return described


def _path_parameters(path: str) -> list[Json]:
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]


def _query_parameters(op: Operation[Any, Any]) -> list[Json]:
    if op.query is None:
        return []
    schema = op.query.json_schema(ref_template=_REFS)
    required = schema.get("required", [])
    parameters: list[Json] = []
    for name, described in schema.get("properties", {}).items():
        inner = {key: value for key, value in described.items() if key not in ("description", "title")}
        parameter: dict[str, Json] = {
            "name": name,
            "in": "query",
            "required": name in required,
            "schema": _inlined(inner, schema),
        }
        if "description" in described:
            parameter["description"] = described["description"]
        parameters.append(parameter)
    return parameters


def _inlined(node: Json, schema: Mapping[str, Any]) -> Json:
    """Put the definitions that a query's model refers to (enums) in the place of the references."""
    match node:
        case Mapping():
            reference = node.get("$ref")
            if isinstance(reference, str):
                return _inlined(schema["$defs"][reference.rpartition("/")[2]], schema)
            return {key: _inlined(value, schema) for key, value in node.items()}
        case list():
            return [_inlined(each, schema) for each in node]
        case _:
            return node


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(cast("Mapping[str, object]", value))
    if isinstance(value, Sequence):
        return list(cast("Sequence[object]", value))
    raise TypeError(f"{type(value).__name__} is not JSON")


_STATUS_WORDS: Mapping[int, str] = {
    200: "Done.",
    201: "Made.",
    202: "Taken; it goes on.",
    400: "The request is not right; `mistakes` says where.",
    401: "A valid API key is needed.",
    403: "The policy says no.",
    404: "There is no such thing, or it is somebody else's.",
    409: "It is not in a state for that.",
    422: "The document has mistakes; `mistakes` says where.",
    429: "A limit is reached.",
    502: "The agent could not be reached, or failed.",
    503: "Not ready; the body says what is missing.",
    504: "The agent did not answer in time.",
}
