"""Canonical JSON (RFC 8785), and the digest by which a change in what an agent says is noticed."""

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256

from .capability import Capability
from .card import AgentCard
from .endpoint import Binding, Endpoint
from .errors import NotCanonical
from .json_value import Json

MAX_DEPTH = 128
"""Levels of nesting that are written; as many as the A2A SDK takes when it checks a signature."""

_MAX_SAFE_INTEGER = 2**53
_A2A_BINDINGS = (Binding.A2A_JSONRPC, Binding.A2A_REST, Binding.A2A_GRPC)


def canonical(value: Json) -> bytes:
    """Return the one JSON text of a value: members sorted, no spaces, numbers as ECMAScript writes them, UTF-8.

    Numbers are IEEE doubles in RFC 8785 (section 3.2.2.3), so `1` and `1.0` are the same, and an integer beyond 2**53
    loses what a double cannot hold.

    Raises:
        NotCanonical: a NaN or infinity, a lone surrogate, more than 128 levels, or something JSON does not have.
    """
    pieces: list[str] = []
    _write(value, pieces, 0)
    try:
        return "".join(pieces).encode()
    except UnicodeEncodeError as error:
        raise NotCanonical("a string holds half of a surrogate pair") from error


def digest(card: AgentCard) -> str:
    """Return `sha256:...` over what the agent says about itself.

    Covered are name, description, instructions, interfaces and capabilities with their schemas and annotations,
    whatever order the capabilities came in. The agent's own version, and what we add to reach it (headers,
    environment), are not: a patch release or a new token is no reason to distrust an agent.

    Raises:
        NotCanonical: a schema has no canonical JSON.
    """
    said: Json = {
        "name": card.name,
        "description": card.description,
        "instructions": card.instructions,
        "interfaces": [_interface(endpoint) for endpoint in card.interfaces],
        "capabilities": [
            _said(capability) for capability in sorted(card.capabilities, key=lambda each: (each.kind.value, each.name))
        ],
    }
    return f"sha256:{sha256(canonical(said)).hexdigest()}"


def _interface(endpoint: Endpoint) -> Json:
    said: dict[str, Json] = {"binding": endpoint.binding.value, "url": endpoint.url}
    if endpoint.binding in _A2A_BINDINGS:
        # Only an A2A card names a version and a tenant; those of other bindings are what was negotiated, or ours.
        said["version"] = endpoint.version
        said["tenant"] = endpoint.tenant
    return said


def _said(capability: Capability) -> Json:
    # Left out where nothing is said, so that digests of agents that know no tasks stay what they were.
    tasks: dict[str, Json] = {"taskSupport": capability.task_support.value} if capability.task_support else {}
    return {
        **tasks,
        "kind": capability.kind.value,
        "name": capability.name,
        "title": capability.title,
        "description": capability.description,
        "tags": list(capability.tags),
        "examples": list(capability.examples),
        "inputSchema": capability.input_schema,
        "outputSchema": capability.output_schema,
        "inputModes": list(capability.input_modes),
        "outputModes": list(capability.output_modes),
        # MCP's hints (read-only, destructive) steer the policy, so a change of them must not pass unseen.
        "annotations": capability.raw.get("annotations"),
    }


def _write(value: Json, pieces: list[str], depth: int) -> None:
    if depth > MAX_DEPTH:
        raise NotCanonical(f"it is nested more than {MAX_DEPTH} levels deep")
    match value:
        case None:
            pieces.append("null")
        case bool():
            pieces.append("true" if value else "false")
        case str():
            pieces.append(_string(value))
        case int() | float():
            pieces.append(_number(value))
        case Mapping():
            pieces.append("{")
            for position, key in enumerate(sorted(value, key=_utf16)):
                pieces.append(("," if position else "") + _string(key) + ":")
                _write(value[key], pieces, depth + 1)
            pieces.append("}")
        case Sequence() if not isinstance(value, (bytes, bytearray, memoryview)):
            pieces.append("[")
            for position, item in enumerate(value):
                if position:
                    pieces.append(",")
                _write(item, pieces, depth + 1)
            pieces.append("]")
        case _:
            raise NotCanonical(f"JSON has no {type(value).__name__}")


def _utf16(key: str) -> bytes:
    """Order of members: by UTF-16 code unit, not by code point (RFC 8785, section 3.2.3)."""
    return key.encode("utf-16-be", "surrogatepass")


def _string(text: str) -> str:
    # The escapes of RFC 8785, section 3.2.2.2, are those that Python's encoder makes when it may write non-ASCII.
    return json.dumps(text, ensure_ascii=False)


def _number(number: int | float) -> str:
    if isinstance(number, int) and -_MAX_SAFE_INTEGER <= number <= _MAX_SAFE_INTEGER:
        return str(number)
    try:
        value = float(number)
    except OverflowError:
        raise NotCanonical("an integer is too large for a JSON number") from None
    if value != value or value in (float("inf"), float("-inf")):
        raise NotCanonical(f"JSON has no {value}")
    if value == 0:
        return "0"
    sign = "-" if value < 0 else ""
    digits, point = _shortest(abs(value))
    if 0 < point <= 21:
        if len(digits) <= point:
            return sign + digits.ljust(point, "0")
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    exponent = point - 1
    fraction = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{fraction}e{'+' if exponent > 0 else '-'}{abs(exponent)}"


def _shortest(value: float) -> tuple[str, int]:
    """Return the fewest digits that give the number back, and where the point stands among them (ECMA-262, 6.1.6.1.20).

    `(digits, point)` means 0.digits times ten to the power of point.
    """
    mantissa, _, exponent = repr(value).partition("e")
    whole, _, fraction = mantissa.partition(".")
    fraction = "" if fraction == "0" else fraction
    point = len(whole) + int(exponent or "0")
    digits = whole + fraction
    stripped = digits.lstrip("0")
    point -= len(digits) - len(stripped)
    return stripped.rstrip("0"), point
