"""JSON-RPC messages, and the little of MCP in them that the bridge looks at."""

import json
from typing import Any, TypeAlias, cast
from uuid import uuid4

Message: TypeAlias = dict[str, Any]
Id: TypeAlias = str | int

VERSION_KEY = "io.modelcontextprotocol/protocolVersion"
SUBSCRIPTION_KEY = "io.modelcontextprotocol/subscriptionId"
IDEMPOTENCY_KEY = "interhub/idempotencyKey"
"""Key of `_meta` that makes a `delegate` sent twice one run (`interhub.hub.faces.mcp.turn`)."""
SERVER_ERROR = -32000
PARSE_ERROR = -32700
INVALID_REQUEST = -32600
HEADER_MISMATCH = -32020
"""A request's headers do not say what its body says (MCP 2026-07-28, basic/transports/streamable-http)."""

CHANGES = {
    "tools": "notifications/tools/list_changed",
    "prompts": "notifications/prompts/list_changed",
    "resources": "notifications/resources/list_changed",
}
"""What a server says when a list of its changed, by the capability."""


def params_of(message: Message) -> Message:
    """Return a message's params; empty when it has none."""
    params = message.get("params")
    return cast("Message", params) if isinstance(params, dict) else {}


def version_of(message: Message) -> str | None:
    """Return the modern version that a request names; None for a legacy one (MCP 2026-07-28, basic/versioning)."""
    version = _meta(message).get(VERSION_KEY)
    return version if isinstance(version, str) else None


def repeatable(message: Message, method: str) -> tuple[Message, bool]:
    """Give a delegation a key, so that it can be sent again to a restarted hub and still be one run."""
    params = params_of(message)
    if method != "tools/call" or params.get("name") != "delegate":
        return message, False
    meta = {IDEMPOTENCY_KEY: str(uuid4()), **_meta(message)}
    return {**message, "params": {**params, "_meta": meta}}, True


def dump(message: Message) -> bytes:
    """Write a message as one line, without its end."""
    return json.dumps(message, separators=(",", ":")).encode()


def _meta(message: Message) -> Message:
    meta = params_of(message).get("_meta")
    return cast("Message", meta) if isinstance(meta, dict) else {}
