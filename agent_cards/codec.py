"""Our own JSON of cards, capabilities and endpoints: what the registry stores. Nothing is lost either way.

A2A's JSON is another matter: see `reader` and `writer`.
"""

from collections.abc import Mapping, Sequence

from .capability import Capability, Kind, TaskSupport
from .card import AgentCard
from .endpoint import Binding, Endpoint
from .errors import CardInvalid, Problem
from .extension import read_extensions, write_extension
from .json_value import Json, JsonObject
from .signature import Signature, SignatureState


def endpoint_to_json(endpoint: Endpoint) -> dict[str, Json]:
    """Write an endpoint; fields at their defaults are left out."""
    fields: dict[str, Json] = {
        "url": endpoint.url,
        "version": endpoint.version,
        "tenant": endpoint.tenant,
        "command": list(endpoint.command),
        "env": dict(endpoint.env),
        "cwd": endpoint.cwd,
        "headers": dict(endpoint.headers),
        "options": dict(endpoint.options),
    }
    return {"binding": endpoint.binding.value, **_said(fields)}


def endpoint_from_json(shaped: JsonObject) -> Endpoint:
    """Read what `endpoint_to_json` wrote.

    Raises:
        CardInvalid: it is something else.
    """
    return _endpoint(_Fields(shaped, ""))


def capability_to_json(capability: Capability) -> dict[str, Json]:
    """Write a capability; texts and lists that are empty are left out."""
    fields: dict[str, Json] = {
        "title": capability.title,
        "description": capability.description,
        "tags": list(capability.tags),
        "examples": list(capability.examples),
        "inputModes": list(capability.input_modes),
        "outputModes": list(capability.output_modes),
        "taskSupport": capability.task_support.value,
        "asksFirst": capability.asks_first,
        "raw": dict(capability.raw),
    }
    shaped: dict[str, Json] = {
        "name": capability.name,
        "kind": capability.kind.value,
        "inputSchema": capability.input_schema,
        **_said(fields),
    }
    if capability.output_schema is not None:
        shaped["outputSchema"] = capability.output_schema
    return shaped


def capability_from_json(shaped: JsonObject) -> Capability:
    """Read what `capability_to_json` wrote.

    Raises:
        CardInvalid: it is something else.
    """
    return _capability(_Fields(shaped, ""))


def card_to_json(card: AgentCard) -> dict[str, Json]:
    """Write a card with all that hangs on it."""
    return {
        "name": card.name,
        "description": card.description,
        "version": card.version,
        "provider": card.provider,
        "documentationUrl": card.documentation_url,
        "iconUrl": card.icon_url,
        "capabilities": [capability_to_json(capability) for capability in card.capabilities],
        "interfaces": [endpoint_to_json(endpoint) for endpoint in card.interfaces],
        "streaming": card.streaming,
        "pushNotifications": card.push_notifications,
        "extendedCard": card.extended_card,
        "extensions": [write_extension(extension) for extension in card.extensions],
        "inputModes": list(card.input_modes),
        "outputModes": list(card.output_modes),
        "instructions": card.instructions,
        "signature": _signature_to_json(card.signature),
        "raw": card.raw,
    }


def card_from_json(shaped: JsonObject) -> AgentCard:
    """Read what `card_to_json` wrote.

    Raises:
        CardInvalid: it is something else.
    """
    fields = _Fields(shaped, "")
    return AgentCard(
        name=fields.text("name"),
        description=fields.text("description"),
        version=fields.text("version"),
        provider=fields.text("provider"),
        documentation_url=fields.text("documentationUrl"),
        icon_url=fields.text("iconUrl"),
        capabilities=tuple(_capability(each) for each in fields.children("capabilities")),
        interfaces=tuple(_endpoint(each) for each in fields.children("interfaces")),
        streaming=fields.flag("streaming"),
        push_notifications=fields.flag("pushNotifications"),
        extended_card=fields.flag("extendedCard"),
        extensions=read_extensions(shaped.get("extensions")),
        input_modes=fields.texts("inputModes"),
        output_modes=fields.texts("outputModes"),
        instructions=fields.text("instructions"),
        signature=_signature(fields.child("signature")),
        raw=fields.object("raw"),
    )


def _said(fields: JsonObject) -> dict[str, Json]:
    return {name: value for name, value in fields.items() if value}


class _Fields:
    """The members of one stored object, each read as one type."""

    def __init__(self, shaped: JsonObject, path: str) -> None:
        self._shaped = shaped
        self._path = path

    def text(self, name: str) -> str:
        value = self._shaped.get(name, "")
        if not isinstance(value, str):
            raise self.wrong(name, "text")
        return value

    def flag(self, name: str) -> bool:
        value = self._shaped.get(name, False)
        if not isinstance(value, bool):
            raise self.wrong(name, "true or false")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        texts: list[str] = []
        for item in self._list(name):
            if not isinstance(item, str):
                raise self.wrong(name, "a list of texts")
            texts.append(item)
        return tuple(texts)

    def object(self, name: str) -> JsonObject:
        value = self._shaped.get(name)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise self.wrong(name, "an object")
        return value

    def text_map(self, name: str) -> dict[str, str]:
        texts: dict[str, str] = {}
        for key, value in self.object(name).items():
            if not isinstance(value, str):
                raise self.wrong(f"{name}.{key}", "text")
            texts[key] = value
        return texts

    def children(self, name: str) -> tuple["_Fields", ...]:
        children: list[_Fields] = []
        for position, item in enumerate(self._list(name)):
            if not isinstance(item, Mapping):
                raise self.wrong(f"{name}[{position}]", "an object")
            children.append(_Fields(item, f"{self._path}{name}[{position}]."))
        return tuple(children)

    def child(self, name: str) -> "_Fields":
        return _Fields(self.object(name), f"{self._path}{name}.")

    def has(self, name: str) -> bool:
        return self._shaped.get(name) is not None

    def _list(self, name: str) -> Sequence[Json]:
        value = self._shaped.get(name)
        if value is None:
            return ()
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise self.wrong(name, "a list")
        return value

    def wrong(self, name: str, wanted: str) -> CardInvalid:
        return CardInvalid("as it is stored", [Problem(self._path + name, f"must be {wanted}")])


def _signature_to_json(signature: Signature) -> Json:
    fields: dict[str, Json] = {
        "keyId": signature.key_id,
        "keySource": signature.key_source,
        "whole": signature.whole,
        "why": signature.why,
    }
    return {"state": signature.state.value, **_said(fields)}


def _signature(fields: _Fields) -> Signature:
    state = fields.text("state") or SignatureState.UNSIGNED.value  # cards of before signatures were looked at
    try:
        known = SignatureState(state)
    except ValueError:
        raise fields.wrong("state", f"one of {', '.join(SignatureState)}") from None
    return Signature(
        state=known,
        key_id=fields.text("keyId"),
        key_source=fields.text("keySource"),
        whole=fields.flag("whole"),
        why=fields.text("why"),
    )


def _endpoint(fields: _Fields) -> Endpoint:
    binding = fields.text("binding")
    try:
        known = Binding(binding)
    except ValueError:
        raise fields.wrong("binding", f"one of {', '.join(Binding)}") from None
    return Endpoint(
        binding=known,
        url=fields.text("url"),
        version=fields.text("version"),
        tenant=fields.text("tenant"),
        command=fields.texts("command"),
        env=fields.text_map("env"),
        cwd=fields.text("cwd"),
        headers=fields.text_map("headers"),
        options=fields.object("options"),
    )


def _capability(fields: _Fields) -> Capability:
    kind = fields.text("kind")
    try:
        known = Kind(kind)
    except ValueError:
        raise fields.wrong("kind", f"one of {', '.join(Kind)}") from None
    try:
        task_support = TaskSupport(fields.text("taskSupport"))
    except ValueError:
        raise fields.wrong("taskSupport", f"one of {', '.join(TaskSupport)}") from None
    return Capability(
        name=fields.text("name"),
        kind=known,
        title=fields.text("title"),
        description=fields.text("description"),
        tags=fields.texts("tags"),
        examples=fields.texts("examples"),
        input_schema=fields.object("inputSchema"),
        output_schema=fields.object("outputSchema") if fields.has("outputSchema") else None,
        input_modes=fields.texts("inputModes"),
        output_modes=fields.texts("outputModes"),
        task_support=task_support,
        asks_first=fields.flag("asksFirst"),
        raw=fields.object("raw"),
    )
