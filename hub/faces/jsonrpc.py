"""JSON-RPC 2.0 requests, read as far as every protocol's short way reads them."""

from typing import Any, cast

import orjson

from interhub.adapters.exact_json import is_exact


def read_request(body: bytes) -> dict[str, Any] | None:
    """Return a request whose version, method and id are in order; None where anything needs a closer look."""
    if not is_exact(body):
        return None
    try:
        read: object = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(read, dict):
        return None
    request = cast("dict[str, Any]", read)
    if request.get("jsonrpc") != "2.0" or not isinstance(request.get("method"), str):
        return None
    return request if type(request.get("id")) in (int, str) else None
