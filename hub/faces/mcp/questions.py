"""What an agent asks, as an MCP elicitation: the form that a client shows, and the answer read out of it.

A form has flat fields only (MCP 2026-07-28, client/elicitation, requested schema). A schema that is not flat becomes
one text field that takes JSON.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import cast

import mcp_types as types
import orjson
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from interhub.adapters import DataPart, Part, TextPart, UrlPart, text_of
from interhub.agent_cards import Json, JsonObject

from .content import json_text

FIELD = "answer"
"""Name of the one field of a form that we made ourselves."""

_COMMON = ("title", "description", "default")
_KEYS: Mapping[str, tuple[str, ...]] = {
    "string": (*_COMMON, "minLength", "maxLength", "format", "enum", "enumNames", "oneOf"),
    "number": (*_COMMON, "minimum", "maximum"),
    "integer": (*_COMMON, "minimum", "maximum"),
    "boolean": _COMMON,
    "array": (*_COMMON, "minItems", "maxItems", "items"),
}
_FORMATS = ("email", "uri", "date", "date-time")


class Asking(StrEnum):
    """How a client can be asked."""

    RETRY = "retry"
    """By an `InputRequiredResult`: the client answers by sending the request again (modern era)."""
    REQUEST = "request"
    """By a request to the client while its own is being served (legacy era)."""
    NEVER = "never"
    """It cannot."""


@dataclass(frozen=True, kw_only=True)
class Client:
    """What the client said it can do, for one request."""

    asking: Asking
    urls: bool = False
    """It can send a person to a URL."""


def client_of(capabilities: types.ClientCapabilities | None, protocol_version: str, *, back_channel: bool) -> Client:
    """Return how the client can be asked. An empty `elicitation` means forms (MCP 2025-11-25, client/elicitation)."""
    offered = capabilities.elicitation if capabilities is not None else None
    if offered is None or (offered.form is None and offered.url is not None):
        # A client that can only open URLs cannot be asked in general; what needs a URL is said in the result.
        return Client(asking=Asking.NEVER)
    urls = offered.url is not None
    if protocol_version in MODERN_PROTOCOL_VERSIONS:
        return Client(asking=Asking.RETRY, urls=urls)
    return Client(asking=Asking.REQUEST if back_channel else Asking.NEVER, urls=urls)


class AnswerUnreadable(Exception):
    """What the person typed is not of the form that the agent wants; the message says why."""


class Shape(StrEnum):
    """What a form's answer stands for."""

    FIELDS = "fields"
    """The fields are the answer."""
    VALUE = "value"
    """The one field's value is."""
    TEXT = "text"
    """The one field's text is."""
    JSON = "json"
    """The one field's text, read as JSON, is."""
    CONSENT = "consent"
    """That the person went on is."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """One question, ready to be shown."""

    message: str
    shape: Shape
    schema: dict[str, Json]
    url: str = ""

    def params(self, *, elicitation_id: str = "") -> types.ElicitRequestParams:
        """Return the parameters of `elicitation/create`."""
        if self.url:
            return types.ElicitRequestURLParams(
                message=self.message, url=self.url, elicitation_id=elicitation_id or None
            )
        return types.ElicitRequestFormParams(message=self.message, requested_schema=self.schema)

    def noted(self, note: str) -> "Form":
        """Return the form with a note above it that says what was wrong with the last answer."""
        return replace(self, message=f"{note}\n\n{self.message}") if note else self

    def read(self, content: Mapping[str, object] | None) -> tuple[Part, ...]:
        """Return the answer of an accepted form.

        Raises:
            AnswerUnreadable: it is not JSON where JSON is wanted.
        """
        fields = cast("JsonObject", content or {})
        match self.shape:
            case Shape.CONSENT:
                return ()
            case Shape.FIELDS:
                return (DataPart(data=dict(fields)),)
            case Shape.VALUE:
                return (DataPart(data=fields.get(FIELD)),)
            case Shape.TEXT:
                return (TextPart(text=str(fields.get(FIELD, ""))),)
            case Shape.JSON:
                try:
                    return (DataPart(data=orjson.loads(str(fields.get(FIELD, "")))),)
                except orjson.JSONDecodeError as error:
                    raise AnswerUnreadable(f"The answer must be JSON: {error}.") from error


def form_of(
    parts: Sequence[Part],
    schema: JsonObject | None,
    *,
    asker: str,
    auth: bool,
    client: Client,
    approval: bool = False,
) -> Form:
    """Make the form of a question. It names who asks. Of an `approval`, to accept the form is to approve."""
    text = question_text(parts)
    message = f"{asker} asks: {text}" if text else f"{asker} asks for your input."
    url = next((part.url for part in parts if isinstance(part, UrlPart)), "")
    if auth:
        if url and client.urls and url.startswith(("https://", "http://")):
            return Form(message=message, shape=Shape.CONSENT, schema={}, url=url)
        if url:
            message += f"\nOpen {url} and come back."
        return Form(message=message, shape=Shape.CONSENT, schema={"type": "object", "properties": {}})
    if approval and schema is None:
        return Form(message=message, shape=Shape.CONSENT, schema={"type": "object", "properties": {}})
    if schema is None:
        return _one_field(message, Shape.TEXT, {"type": "string", "title": "Answer"})
    flat = _flat(schema)
    if flat is not None:
        return Form(message=message, shape=Shape.FIELDS, schema=flat)
    value = _field(schema)
    if value is not None:
        return _one_field(message, Shape.VALUE, value)
    description = f"JSON by this schema: {json_text(schema)}"
    return _one_field(message, Shape.JSON, {"type": "string", "title": "Answer (JSON)", "description": description})


def question_text(parts: Sequence[Part]) -> str:
    """Return a question in words: its text, and its data as JSON."""
    lines = [text_of(parts), *(json_text(part.data) for part in parts if isinstance(part, DataPart))]
    return "\n".join(line for line in lines if line)


def _one_field(message: str, shape: Shape, field: dict[str, Json]) -> Form:
    schema: dict[str, Json] = {"type": "object", "properties": {FIELD: field}, "required": [FIELD]}
    return Form(message=message, shape=shape, schema=schema)


def _flat(schema: JsonObject) -> dict[str, Json] | None:
    properties = schema.get("properties")
    if schema.get("type", "object") != "object" or not isinstance(properties, Mapping) or not properties:
        return None
    fields: dict[str, Json] = {}
    for name, value in properties.items():
        field = _field(value)
        if field is None:
            return None
        fields[name] = field
    flat: dict[str, Json] = {"type": "object", "properties": fields}
    required = schema.get("required")
    if isinstance(required, Sequence) and not isinstance(required, str):
        flat["required"] = [name for name in required if name in fields]
    return flat


def _field(value: Json) -> dict[str, Json] | None:
    """Return a field that every client can show, or None. What it cannot say (a pattern) is checked on the answer."""
    if not isinstance(value, Mapping):
        return None
    kind = value.get("type")
    choices = value.get("enum")
    if kind is None and _texts(choices):
        kind = "string"
    if not isinstance(kind, str) or kind not in _KEYS or (choices is not None and not _texts(choices)):
        return None
    if kind == "array" and not _choices(value.get("items")):
        return None
    if "oneOf" in value and not _titled(value["oneOf"]):
        return None
    field: dict[str, Json] = {"type": kind}
    for key in _KEYS[kind]:
        if value.get(key) is not None and not (key == "format" and value[key] not in _FORMATS):
            field[key] = value[key]
    return field


def _texts(value: Json) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(each, str) for each in value)


def _titled(value: Json) -> bool:
    if isinstance(value, str) or not isinstance(value, Sequence):
        return False
    return all(isinstance(each, Mapping) and isinstance(each.get("const"), str) for each in value)


def _choices(items: Json) -> bool:
    return isinstance(items, Mapping) and (_texts(items.get("enum")) or _titled(items.get("anyOf")))
