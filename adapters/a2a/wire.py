"""A2A as it goes over the wire: how each version and binding writes a request, and what errors it has.

Everything inside the adapter is A2A 1.0; version 0.3 exists in this module and in the reader (`a2a_tolerance`) only.
The JSON is read and written as it is, not through the SDK's protobuf types: those turn integers into floats and drop
what they do not know.
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol
from urllib.parse import quote
from uuid import uuid4

from interhub.adapters.content import DataPart, Message, Part, RawPart, Role, TextPart, UrlPart, message_to_json
from interhub.agent_cards import Json


class WireVersion(StrEnum):
    """The two families of A2A that we speak."""

    V1 = "1.0"
    V03 = "0.3"


def wire_version(version: str) -> WireVersion | None:
    """Return the family of a protocol version such as "1.0", "1.2" or "0.3.0"; None for one that we do not speak."""
    major, _, rest = version.partition(".")
    if major == "1":
        return WireVersion.V1
    if major == "0" and rest.partition(".")[0] in {"2", "3"}:
        return WireVersion.V03
    return None


class Fault(Exception):
    """The agent answered with an error of the protocol (A2A 1.0, section 3.3.2)."""

    def __init__(self, message: str, *, code: int | None = None, reason: str = "", data: Json = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code if code is not None else _CODES.get(reason)
        """The JSON-RPC code; for HTTP+JSON the one that its reason stands for."""
        self.reason = reason or _REASONS.get(self.code or 0, "")
        """A2A 1.0, section 5.4: `TASK_NOT_FOUND` and so on; empty when it is none of these."""
        self.data = data


class Operation(StrEnum):
    """What we ask of an agent; the values are A2A 1.0's JSON-RPC methods."""

    SEND = "SendMessage"
    STREAM = "SendStreamingMessage"
    GET = "GetTask"
    CANCEL = "CancelTask"
    SUBSCRIBE = "SubscribeToTask"
    CARD = "GetExtendedAgentCard"

    @property
    def streams(self) -> bool:
        """The answer is an event stream."""
        return self in {Operation.STREAM, Operation.SUBSCRIBE}


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One request, before a dialect writes it."""

    operation: Operation
    task_id: str = ""
    message: Message | None = None
    return_immediately: bool = False
    """Answer with the task as soon as there is one (A2A 1.0, section 3.2.2)."""


@dataclass(frozen=True, kw_only=True)
class HttpRequest:
    """One request, as HTTP."""

    method: str
    url: str
    body: Json = None
    """None means no body."""
    headers: Mapping[str, str]


class Dialect(Protocol):
    """One version over one binding."""

    @property
    def version(self) -> WireVersion:
        """The version that it writes."""
        ...

    def write(self, url: str, ask: Ask) -> HttpRequest:
        """Write a request to the interface at `url`."""
        ...

    def unwrap(self, document: Json) -> Json:
        """Take the result out of an answer or an event.

        Raises:
            Fault: it is an error.
            ValueError: it is neither.
        """
        ...


class JsonRpc:
    """JSON-RPC 2.0 (A2A 1.0, section 9; A2A 0.3, section 3.2.1)."""

    def __init__(self, version: WireVersion, *, tenant: str = "", extensions: Sequence[str] = ()) -> None:
        """`extensions` are activated by every request."""
        self._version = version
        self._extensions = tuple(extensions)
        self._tenant = tenant

    @property
    def version(self) -> WireVersion:
        """The version that it writes."""
        return self._version

    def write(self, url: str, ask: Ask) -> HttpRequest:
        """Write a call of the operation's method."""
        params: dict[str, Json] = {}
        if self._tenant and self._version is WireVersion.V1:
            params["tenant"] = self._tenant
        if ask.operation is Operation.CARD:
            pass
        elif ask.message is None:
            params["id"] = ask.task_id
        elif self._version is WireVersion.V1:
            params["message"] = message_to_json(ask.message)
            params["configuration"] = {"returnImmediately": ask.return_immediately}
        else:
            params["message"] = _message_03(ask.message)
            params["configuration"] = {"blocking": not ask.return_immediately}
        method = ask.operation.value if self._version is WireVersion.V1 else _METHODS_03[ask.operation]
        body: dict[str, Json] = {"jsonrpc": "2.0", "id": uuid4().hex, "method": method, "params": params}
        return HttpRequest(method="POST", url=url, body=body, headers=_headers(self._version, ask, self._extensions))

    def unwrap(self, document: Json) -> Json:
        """Take `result`, or raise `error`."""
        if not isinstance(document, Mapping):
            raise ValueError(f"a JSON-RPC answer is an object, not {type(document).__name__}")
        error = document.get("error")
        if isinstance(error, Mapping):
            code = error.get("code")
            raise Fault(
                str(error.get("message") or "no message"),
                code=code if isinstance(code, int) else None,
                data=error.get("data"),
            )
        if error is not None:
            raise Fault(str(error))
        if "result" not in document:
            raise ValueError(f"a JSON-RPC answer has a result or an error; this one has {sorted(document)}")
        return document["result"]


class HttpJson:
    """HTTP+JSON (A2A 1.0, section 11; A2A 0.3, section 3.2.3)."""

    def __init__(self, version: WireVersion, *, tenant: str = "", extensions: Sequence[str] = ()) -> None:
        """`extensions` are activated by every request."""
        self._version = version
        self._extensions = tuple(extensions)
        self._prefix = f"/{quote(tenant, safe='')}" if tenant and version is WireVersion.V1 else ""

    @property
    def version(self) -> WireVersion:
        """The version that it writes."""
        return self._version

    def write(self, url: str, ask: Ask) -> HttpRequest:
        """Write the operation's method, path and body."""
        base = url.rstrip("/") + self._prefix + ("/v1" if self._version is WireVersion.V03 else "")
        headers = _headers(self._version, ask, self._extensions)
        if ask.message is None:
            task = f"{base}/tasks/{quote(ask.task_id, safe='')}"
            match ask.operation:
                case Operation.CARD:
                    card = "card" if self._version is WireVersion.V03 else "extendedAgentCard"
                    return HttpRequest(method="GET", url=f"{base}/{card}", headers=headers)
                case Operation.CANCEL:
                    return HttpRequest(method="POST", url=f"{task}:cancel", body={}, headers=headers)
                case Operation.SUBSCRIBE:
                    return HttpRequest(method="POST", url=f"{task}:subscribe", headers=headers)
                case _:
                    return HttpRequest(method="GET", url=task, headers=headers)
        verb = "stream" if ask.operation is Operation.STREAM else "send"
        if self._version is WireVersion.V1:
            body: dict[str, Json] = {
                "message": message_to_json(ask.message),
                "configuration": {"returnImmediately": ask.return_immediately},
            }
        else:
            body = {
                "message": _message_03_rest(ask.message),
                "configuration": {"blocking": not ask.return_immediately},
            }
        return HttpRequest(method="POST", url=f"{base}/message:{verb}", body=body, headers=headers)

    def unwrap(self, document: Json) -> Json:
        """Take the document, or raise the error that it is.

        An error is `{"error": {...}}` with `google.rpc.ErrorInfo` (A2A 1.0, section 11.6), a problem document
        (RFC 9457), or what the 0.3 SDKs sent: `{"type": "TaskNotFoundError", "message": ...}`.
        """
        if not isinstance(document, Mapping):
            raise ValueError(f"an HTTP+JSON answer is an object, not {type(document).__name__}")
        error = document.get("error")
        if isinstance(error, Mapping):
            details = error.get("details")
            reason = ""
            for detail in details if isinstance(details, list) else []:
                if isinstance(detail, Mapping) and isinstance(detail.get("reason"), str):
                    reason = str(detail["reason"])
                    break
            code = error.get("code")
            negative = code if isinstance(code, int) and code < 0 else None  # elsewhere it repeats the HTTP status
            raise Fault(str(error.get("message") or "no message"), code=negative, reason=reason, data=details)
        if isinstance(error, str):
            raise Fault(error)
        kind, text = document.get("type"), document.get("message") or document.get("detail") or document.get("title")
        if isinstance(kind, str) and isinstance(text, str) and "kind" not in document:
            name = kind.rstrip("/").rpartition("/")[2].removesuffix("Error")
            reason = name.replace("-", "").replace("_", "").upper()
            raise Fault(text, reason=next((known for known in _CODES if known.replace("_", "") == reason), ""))
        return document


def _headers(version: WireVersion, ask: Ask, extensions: Sequence[str]) -> dict[str, str]:
    headers = {
        "A2A-Version": version.value,
        "Accept": "text/event-stream" if ask.operation.streams else "application/json, application/a2a+json",
    }
    used = ask.message.extensions if ask.message is not None else ()
    named = ", ".join(dict.fromkeys((*extensions, *used)))
    if named:
        # A2A 1.0, section 3.2.6. The 0.3 SDKs read the X- name; what was made between the versions, the other.
        headers["A2A-Extensions"] = named
        if version is WireVersion.V03:
            headers["X-A2A-Extensions"] = named
    return headers


def _message_03(message: Message) -> Json:
    shaped: dict[str, Json] = {
        "kind": "message",
        "messageId": message.message_id,
        "role": "user" if message.role is Role.USER else "agent",
        "parts": [_part_03(part) for part in message.parts],
    }
    return shaped | _optional(message, references=True)


def _message_03_rest(message: Message) -> Json:
    """0.3's HTTP+JSON is the JSON form of its protobuf file: `content` for parts, full enum names."""
    shaped: dict[str, Json] = {
        "messageId": message.message_id,
        "role": message.role.value,
        "content": [_part_03_rest(part) for part in message.parts],
    }
    return shaped | _optional(message, references=False)


def _optional(message: Message, *, references: bool) -> dict[str, Json]:
    shaped: dict[str, Json] = {}
    if message.context_id:
        shaped["contextId"] = message.context_id
    if message.task_id:
        shaped["taskId"] = message.task_id
    if message.metadata:
        shaped["metadata"] = message.metadata
    if message.extensions:
        shaped["extensions"] = list(message.extensions)
    if references and message.reference_task_ids:
        shaped["referenceTaskIds"] = list(message.reference_task_ids)
    return shaped


def _part_03(part: Part) -> Json:
    metadata = dict(part.metadata)
    match part:
        case TextPart():
            shaped: dict[str, Json] = {"kind": "text", "text": part.text}
        case DataPart():
            shaped = {"kind": "data", "data": _data_03(part.data, metadata)}
        case RawPart():
            shaped = {"kind": "file", "file": {"bytes": b64encode(part.raw).decode("ascii"), **_file_03(part)}}
        case UrlPart():
            shaped = {"kind": "file", "file": {"uri": part.url, **_file_03(part)}}
    return shaped | ({"metadata": metadata} if metadata else {})


def _part_03_rest(part: Part) -> Json:
    metadata = dict(part.metadata)
    match part:
        case TextPart():
            shaped: dict[str, Json] = {"text": part.text}
        case DataPart():
            shaped = {"data": {"data": _data_03(part.data, metadata)}}
        case RawPart():
            # Base64 twice: the 0.3 SDK's file_with_bytes holds base64 text, and protobuf's JSON encodes bytes again.
            twice = b64encode(b64encode(part.raw)).decode("ascii")
            shaped = {"file": {"fileWithBytes": twice, **_file_03(part)}}
        case UrlPart():
            shaped = {"file": {"fileWithUri": part.url, **_file_03(part)}}
    return shaped | ({"metadata": metadata} if metadata else {})


def _data_03(data: Json, metadata: dict[str, Json]) -> Json:
    """0.3 allows objects only; the SDKs wrap anything else and say so in the metadata."""
    if isinstance(data, Mapping):
        return data
    metadata["data_part_compat"] = True
    return {"value": data}


def _file_03(part: RawPart | UrlPart) -> dict[str, Json]:
    named: dict[str, Json] = {}
    if part.media_type:
        named["mimeType"] = part.media_type
    if part.filename:
        named["name"] = part.filename
    return named


_METHODS_03 = {
    Operation.SEND: "message/send",
    Operation.STREAM: "message/stream",
    Operation.GET: "tasks/get",
    Operation.CANCEL: "tasks/cancel",
    Operation.SUBSCRIBE: "tasks/resubscribe",
    Operation.CARD: "agent/getAuthenticatedExtendedCard",
}

_CODES = {
    "TASK_NOT_FOUND": -32001,
    "TASK_NOT_CANCELABLE": -32002,
    "PUSH_NOTIFICATION_NOT_SUPPORTED": -32003,
    "UNSUPPORTED_OPERATION": -32004,
    "CONTENT_TYPE_NOT_SUPPORTED": -32005,
    "INVALID_AGENT_RESPONSE": -32006,
    "EXTENDED_AGENT_CARD_NOT_CONFIGURED": -32007,
    "EXTENSION_SUPPORT_REQUIRED": -32008,
    "VERSION_NOT_SUPPORTED": -32009,
    "INVALID_REQUEST": -32600,
    "METHOD_NOT_FOUND": -32601,
    "INVALID_PARAMS": -32602,
    "INTERNAL_ERROR": -32603,
}
_REASONS = {code: reason for reason, code in _CODES.items()}
