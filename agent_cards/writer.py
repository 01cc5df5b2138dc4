"""A2A agent cards as we publish them: strict, of version 1.0, of 0.3, or of both at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import orjson

from .capability import Capability, Kind
from .card import AgentCard
from .endpoint import Binding, Endpoint
from .errors import CardInvalid, Problem
from .extension import write_extension
from .json_value import Json
from .reader import message_capability
from .schemas import schemas_extension

CardVersion = Literal["1.0", "0.3", "dual"]

_A2A_BINDINGS = (Binding.A2A_JSONRPC, Binding.A2A_REST, Binding.A2A_GRPC)
_PUBLISHED_KINDS = (Kind.SKILL, Kind.TOOL)


@dataclass(frozen=True, kw_only=True)
class Security:
    """How a caller of the published agent proves who it is: an API key as HTTP bearer token, or in a header."""

    bearer: bool = True
    """`Authorization: Bearer KEY`."""
    header: str = ""
    """The name of a header that takes the key as well; empty when there is none."""
    description: str = "An API key of the hub."

    def schemes(self, version: CardVersion) -> dict[str, Json]:
        """Return `securitySchemes` as a version writes them; the dual form has the members of both."""
        written: dict[str, Json] = {}
        if self.bearer:
            new: dict[str, Json] = {
                "httpAuthSecurityScheme": {"scheme": "Bearer", "description": self.description},
            }
            old: dict[str, Json] = {"type": "http", "scheme": "bearer", "description": self.description}
            written["bearer"] = _of_version(version, new, old)
        if self.header:
            new = {
                "apiKeySecurityScheme": {"location": "header", "name": self.header, "description": self.description},
            }
            old = {"type": "apiKey", "in": "header", "name": self.header, "description": self.description}
            written["apiKey"] = _of_version(version, new, old)
        return written

    def requirements(self) -> list[Json]:
        """Return `securityRequirements` of 1.0: any one of the schemes is enough."""
        return [{"schemes": {name: {"list": []}}} for name in self.schemes("1.0")]

    def legacy_requirements(self) -> list[Json]:
        """Return `security` of 0.3."""
        return [{name: []} for name in self.schemes("0.3")]


def write_card(card: AgentCard, *, version: CardVersion, security: Security | None = None) -> dict[str, Json]:
    """Write a card in A2A JSON, complete and strict.

    A card of 1.0 names the interfaces of 1.x, one of 0.3 those of 0.3, and a dual card all of them, with the fields of
    0.3 besides those of 1.0. An interface without a version counts for both. Tools are written as skills. Required
    fields are never empty, because both SDKs drop empty ones when they check a signature (A2A issue 2122): what the
    agent left out is filled with what else it said.

    Raises:
        CardInvalid: the card has no name or no interface of that version, or the A2A SDK would not read the result.
    """
    problems: list[Problem] = []
    if not card.name.strip():
        problems.append(Problem("name", "is missing"))
    new: tuple[Endpoint, ...] = _interfaces(card, "1") if version != "0.3" else ()
    old: tuple[Endpoint, ...] = _interfaces(card, "0.3") if version != "1.0" else ()
    if not (new or old) or (version == "dual" and not (new and old)):
        wanted = "1.0 and 0.3" if version == "dual" else version
        problems.append(Problem("supportedInterfaces", f"there is no A2A interface of version {wanted}"))
    if problems:
        raise CardInvalid(card.name or "without a name", problems)

    published = [each for each in card.capabilities if each.kind in _PUBLISHED_KINDS]
    if not published:
        published = [message_capability(card.name, card.description)]
    written: dict[str, Json] = {
        "name": card.name,
        "description": card.description or card.name,
        "version": card.version or "0.0.0",
        "capabilities": _declared(card, published, version),
        "defaultInputModes": list(card.input_modes) or ["text/plain"],
        "defaultOutputModes": list(card.output_modes) or ["text/plain"],
        "skills": [_skill(capability) for capability in published],
    }
    if card.provider:
        # Both fields are required (section 4.4.2); the address of the agent's documentation stands in for the URL.
        written["provider"] = {"organization": card.provider, "url": card.documentation_url or [*new, *old][0].url}
    if card.documentation_url:
        written["documentationUrl"] = card.documentation_url
    if card.icon_url:
        written["iconUrl"] = card.icon_url
    if new:
        # In a dual card the interfaces of 0.3 follow, so that a client of 1.0 that knows both takes ours of 1.0.
        written["supportedInterfaces"] = [
            *(_interface(endpoint, "1.0") for endpoint in new),
            *(_interface(endpoint, "0.3") for endpoint in old),
        ]
    if old:
        first, *others = old
        written["protocolVersion"] = "0.3.0"
        written["url"] = first.url
        written["preferredTransport"] = first.binding.value
        if others:
            written["additionalInterfaces"] = [
                {"url": endpoint.url, "transport": endpoint.binding.value} for endpoint in old
            ]
        if card.extended_card:
            written["supportsAuthenticatedExtendedCard"] = True
    if security is not None:
        schemes = security.schemes(version)
        if schemes:
            written["securitySchemes"] = schemes
            if version != "0.3":
                written["securityRequirements"] = security.requirements()
            if version != "1.0":
                written["security"] = security.legacy_requirements()
    _check(card.name, written, version)
    return written


def _interfaces(card: AgentCard, prefix: str) -> tuple[Endpoint, ...]:
    return tuple(
        endpoint
        for endpoint in card.interfaces
        if endpoint.binding in _A2A_BINDINGS
        and endpoint.url
        and (not endpoint.version or endpoint.version.startswith(prefix))
    )


def _interface(endpoint: Endpoint, version: str) -> Json:
    written: dict[str, Json] = {
        "url": endpoint.url,
        "protocolBinding": endpoint.binding.value,
        "protocolVersion": endpoint.version or version,
    }
    if endpoint.tenant:
        written["tenant"] = endpoint.tenant
    return written


def _declared(card: AgentCard, published: Sequence[Capability], version: CardVersion) -> Json:
    declared: dict[str, Json] = {"streaming": card.streaming, "pushNotifications": card.push_notifications}
    if version != "0.3":
        declared["extendedAgentCard"] = card.extended_card
    extensions: list[Json] = [write_extension(extension) for extension in card.extensions]
    schemas = schemas_extension(published)
    if schemas is not None:
        extensions.append(schemas)
    if extensions:
        declared["extensions"] = extensions
    return declared


def _skill(capability: Capability) -> Json:
    title = capability.title or capability.name
    written: dict[str, Json] = {
        "id": capability.name,
        "name": title,
        "description": capability.description or title,
        "tags": list(capability.tags) or [capability.kind.value],
    }
    for name, values in (
        ("examples", capability.examples),
        ("inputModes", capability.input_modes),
        ("outputModes", capability.output_modes),
    ):
        if values:
            written[name] = list(values)
    return written


def _of_version(version: CardVersion, new: Mapping[str, Json], old: Mapping[str, Json]) -> Json:
    match version:
        case "1.0":
            return dict(new)
        case "0.3":
            return dict(old)
        case "dual":
            return {**new, **old}


def _check(name: str, written: Mapping[str, Json], version: CardVersion) -> None:
    """Let the A2A SDK read what we are about to publish.

    Raises:
        CardInvalid: it cannot, or misses a required field.
    """
    # Imported late: the SDK's types take a fifth of a second, and a process may never publish a card.
    from a2a.client.card_resolver import parse_agent_card
    from a2a.types import AgentCard as SdkCard
    from a2a.utils.errors import InvalidParamsError
    from a2a.utils.proto_utils import validate_proto_required_fields
    from google.protobuf.json_format import ParseDict, ParseError

    try:
        if version == "1.0":
            parsed = ParseDict(dict(written), SdkCard())
        else:
            parsed = parse_agent_card(orjson.loads(orjson.dumps(written)))  # a copy, for it edits what it is given
    except ParseError as error:
        raise CardInvalid(name, [Problem("(whole card)", f"the A2A SDK does not read it: {error}")]) from error
    try:
        validate_proto_required_fields(parsed)
    except InvalidParamsError as error:
        raise CardInvalid(name, [Problem("(whole card)", f"the A2A SDK misses fields: {error}")]) from error
