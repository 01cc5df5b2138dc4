"""A2A agent cards as they are found: versions 1.0, 0.3 and both at once, read tolerantly.

What an agent needs to be called must be there: a name, and an interface that we can use. Everything else may be
missing, null or of a wrong type; it is then taken as not said. The whole document stays in `AgentCard.raw`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import urljoin, urlsplit

import orjson

from .canonical import MAX_DEPTH
from .capability import SKILL_INPUT_SCHEMA, Capability, Kind
from .card import AgentCard
from .endpoint import Binding, Endpoint
from .errors import CardInvalid, CardTooLarge, CardVersionUnsupported, NotACard, Problem
from .extension import read_extensions
from .json_value import Json, JsonObject
from .schemas import SCHEMAS_URI, published_schemas

MAX_CARD_BYTES = 1024 * 1024
"""A card may be this long; what is longer is taken for something else, or for an attack."""

_BINDINGS = {
    "JSONRPC": Binding.A2A_JSONRPC,
    "HTTPJSON": Binding.A2A_REST,
    "REST": Binding.A2A_REST,
    "HTTP": Binding.A2A_REST,
    "GRPC": Binding.A2A_GRPC,
}
_CARD_FIELDS = frozenset(
    {
        "name",
        "skills",
        "url",
        "supportedInterfaces",
        "supported_interfaces",
        "capabilities",
        "protocolVersion",
        "protocol_version",
        "defaultInputModes",
        "default_input_modes",
    }
)


def read_card(document: bytes | Mapping[str, Json], *, source: str) -> AgentCard:
    """Read an A2A agent card.

    `source` says where it came from: it is named in errors, and relative interface URLs are resolved against it when
    it is a URL. Interfaces of one major version are called by the version that we speak: 1.x is "1.0", 0.2 and 0.3 are
    "0.3". A card without skills gets one, for its messages.

    Raises:
        CardTooLarge: it has more than 1 MiB.
        NotACard: it is an HTML page, or something else that is no card.
        CardVersionUnsupported: every interface wants a version of A2A that we do not speak.
        CardInvalid: it has no name, or no interface that we can use.
    """
    raw = _parse(document, source)
    if not _CARD_FIELDS & raw.keys():
        raise NotACard(source, _object_in_words(raw))
    problems: list[Problem] = []
    name = _text(raw, "name").strip()
    if not name:
        problems.append(Problem("name", "is missing"))
    interfaces, refused, versions = _interfaces(raw, source)
    if not interfaces:
        if versions and not problems and all(problem.path.endswith("rotocolVersion") for problem in refused):
            raise CardVersionUnsupported(source, refused, versions)
        problems.extend(refused)
    if problems:
        raise CardInvalid(source, problems)
    declared = _object(raw, "capabilities")
    provider = _object(raw, "provider")
    description = _text(raw, "description")
    return AgentCard(
        name=name,
        description=description,
        version=_text(raw, "version"),
        provider=_text(provider, "organization") or _text(provider, "url") or _text(raw, "provider"),
        documentation_url=_text(raw, "documentationUrl"),
        icon_url=_text(raw, "iconUrl"),
        capabilities=_capabilities(raw) or (message_capability(name, description),),
        interfaces=interfaces,
        streaming=_get(declared, "streaming") is True,
        push_notifications=_get(declared, "pushNotifications") is True,
        extended_card=_get(declared, "extendedAgentCard") is True
        or _get(raw, "supportsAuthenticatedExtendedCard") is True,
        extensions=tuple(one for one in read_extensions(_get(declared, "extensions")) if one.uri != SCHEMAS_URI),
        input_modes=_texts(raw, "defaultInputModes") or ("text/plain",),
        output_modes=_texts(raw, "defaultOutputModes") or ("text/plain",),
        raw=raw,
    )


def message_capability(name: str, description: str) -> Capability:
    """Return the one capability of an A2A agent that lists no skills: it takes messages all the same."""
    return Capability(name="message", kind=Kind.SKILL, title=name, description=description)


def _parse(document: bytes | Mapping[str, Json], source: str) -> JsonObject:
    if not isinstance(document, bytes):
        # A copy of our own: `raw` must not change when the caller edits what it passed.
        try:
            document = orjson.dumps(document)
        except TypeError as error:
            raise NotACard(source, f"an object that is not JSON ({error})") from error
    if len(document) > MAX_CARD_BYTES:
        raise CardTooLarge(source, len(document), MAX_CARD_BYTES)
    text = document.removeprefix(b"\xef\xbb\xbf").strip()
    try:
        value: Json = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise NotACard(source, _bytes_in_words(text, error)) from error
    match value:
        case Mapping():
            if _too_deep(value):
                raise CardInvalid(source, [Problem("(whole card)", f"is nested more than {MAX_DEPTH} levels deep")])
            return value
        case str():
            raise NotACard(source, "a JSON string")
        case Sequence():
            raise NotACard(source, "a JSON list")
        case _:
            raise NotACard(source, f"the JSON value {json.dumps(value)[:40]}")


def _too_deep(value: Json) -> bool:
    level: list[Json] = [value]
    for _ in range(MAX_DEPTH):
        level = [child for parent in level for child in _children(parent)]
        if not level:
            return False
    return True


def _children(value: Json) -> Iterator[Json]:
    match value:
        case str():
            return
        case Mapping():
            yield from value.values()
        case Sequence():
            yield from value
        case _:
            return


def _bytes_in_words(text: bytes, error: orjson.JSONDecodeError) -> str:
    start = text[:1024].lower()
    if not text:
        return "nothing: the answer is empty"
    if start.startswith((b"<!doctype html", b"<html")) or b"<html" in start:
        return "an HTML page"
    if start.startswith(b"<"):
        return "an XML document"
    if start.startswith((b"{", b"[")):
        return f"broken JSON (line {error.lineno}, column {error.colno}: {error.msg.split(':')[0]})"
    try:
        shown = text[:200].decode()
    except UnicodeDecodeError as undecodable:
        if undecodable.start < 190:  # else only the cut at 200 bytes went through a character
            return "bytes that are not UTF-8 text"
        shown = text[: undecodable.start].decode()
    return f"the text {shown[:40]!r}"


def _object_in_words(raw: JsonObject) -> str:
    if "jsonrpc" in raw:
        return "a JSON-RPC message"
    if "mcpServers" in raw or "servers" in raw:
        return "a list of MCP servers (import it with `interhub agents add`)"
    if not raw:
        return "an empty JSON object"
    keys = ", ".join(sorted(raw)[:5])
    return f"a JSON object with the fields {keys}"


def _interfaces(raw: JsonObject, source: str) -> tuple[tuple[Endpoint, ...], list[Problem], list[str]]:
    """Return the interfaces that we can use in the card's order, why others cannot be, and versions we do not speak."""
    usable: list[Endpoint] = []
    problems: list[Problem] = []
    unknown_versions: list[str] = []

    def consider(path: str, url: Json, binding: Json, version: Json, version_path: str, tenant: str = "") -> None:
        known_binding = _binding(binding)
        if known_binding is None:
            said = binding if isinstance(binding, str) and binding else "nothing"
            known = "JSONRPC, HTTP+JSON or GRPC"
            problems.append(Problem(f"{path}protocolBinding", f"must be {known}, not {said}"))
            return
        known_version = _version(version)
        if known_version is None:
            unknown_versions.append(str(version))
            problems.append(Problem(version_path, f"{version} is not a version that we speak"))
            return
        address = _address(url, known_binding, source)
        if not address:
            problems.append(Problem(f"{path}url", "is missing" if not url else f"{url!r} is not an http(s) URL"))
            return
        endpoint = Endpoint(binding=known_binding, url=address, version=known_version, tenant=tenant)
        if endpoint not in usable:
            usable.append(endpoint)

    root_version = _get(raw, "protocolVersion")
    listed = _objects(raw, "supportedInterfaces")
    for position, interface in enumerate(listed):
        path = f"supportedInterfaces[{position}]."
        version = _get(interface, "protocolVersion") or root_version or "1.0"
        binding = _get(interface, "protocolBinding") or _get(interface, "transport")
        tenant = _text(interface, "tenant")
        consider(path, _get(interface, "url"), binding, version, f"{path}protocolVersion", tenant)
    if usable:
        # A card for both versions repeats its 0.3 interfaces at the top, where no signature covers them.
        return tuple(usable), problems, unknown_versions
    if _get(raw, "url") is not None or not listed:
        version = root_version or "0.3"
        if _get(raw, "url") is None and not listed:
            problems.append(Problem("supportedInterfaces", "is missing (and `url`, where A2A 0.3 has it)"))
        else:
            preferred = _get(raw, "preferredTransport") or "JSONRPC"
            consider("", _get(raw, "url"), preferred, version, "protocolVersion")
        for position, interface in enumerate(_objects(raw, "additionalInterfaces")):
            path = f"additionalInterfaces[{position}]."
            binding = _get(interface, "transport") or _get(interface, "protocolBinding")
            consider(path, _get(interface, "url"), binding, version, "protocolVersion")
    return tuple(usable), problems, unknown_versions


def _binding(said: Json) -> Binding | None:
    if not isinstance(said, str):
        return None
    return _BINDINGS.get("".join(character for character in said.upper() if character.isalnum()))


def _version(said: Json) -> str | None:
    """Return the version that we speak for what the card says; None when there is none."""
    major, _, rest = str(said).strip().removeprefix("v").partition(".")
    if major == "1":
        return "1.0"
    if major == "0" and rest.partition(".")[0] in ("2", "3"):
        # 0.2.5 and 0.2.6, still in use, have the methods and shapes of 0.3.
        return "0.3"
    return None


def _address(url: Json, binding: Binding, source: str) -> str:
    """Return the absolute URL of an interface; empty when it is none."""
    if not isinstance(url, str) or not url.strip():
        return ""
    url = url.strip()
    if binding is Binding.A2A_GRPC and "://" not in url:
        return url  # gRPC targets are written host:port
    try:
        parts = urlsplit(url)
        if not parts.scheme and not parts.netloc and urlsplit(source).scheme in ("http", "https"):
            url = urljoin(source, url)
            parts = urlsplit(url)
        usable = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return ""
    schemes = ("http", "https", "grpc", "grpcs") if binding is Binding.A2A_GRPC else ("http", "https")
    return url if usable and parts.scheme in schemes else ""


def _capabilities(raw: JsonObject) -> tuple[Capability, ...]:
    schemas = published_schemas(raw)
    read: dict[str, Capability] = {}
    for skill in _objects(raw, "skills"):
        title = _text(skill, "name")
        name = _text(skill, "id").strip() or title.strip()
        if not name or name in read:
            continue
        schema = schemas.get(name)
        read[name] = Capability(
            name=name,
            kind=Kind.SKILL,
            title=title,
            description=_text(skill, "description"),
            tags=_texts(skill, "tags"),
            examples=_texts(skill, "examples"),
            input_schema=schema.input if schema else SKILL_INPUT_SCHEMA,
            output_schema=schema.output if schema else None,
            input_modes=_texts(skill, "inputModes"),
            output_modes=_texts(skill, "outputModes"),
            raw=skill,
        )
    return tuple(read.values())


def _get(holder: JsonObject, name: str) -> Json:
    """Return a member by its JSON name, or by its protobuf name (`supported_interfaces`), which some servers send."""
    value = holder.get(name)
    if value is None:
        value = holder.get("".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name))
    return value


def _text(holder: JsonObject, name: str) -> str:
    value = _get(holder, name)
    return value if isinstance(value, str) else ""


def _texts(holder: JsonObject, name: str) -> tuple[str, ...]:
    value = _get(holder, name)
    if isinstance(value, str):
        return (value,) if value else ()
    if not isinstance(value, Sequence):
        return ()
    return tuple(item for item in value if isinstance(item, str) and item)


def _object(holder: JsonObject, name: str) -> JsonObject:
    value = _get(holder, name)
    return value if isinstance(value, Mapping) else {}


def _objects(holder: JsonObject, name: str) -> tuple[JsonObject, ...]:
    value = _get(holder, name)
    if isinstance(value, str) or not isinstance(value, Sequence):
        return ()
    return tuple(item for item in value if isinstance(item, Mapping))
