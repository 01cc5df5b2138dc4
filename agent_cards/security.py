"""What an agent's card asks of its callers: security schemes, and which of them go together (A2A 1.0, section 4.5)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from .json_value import Json, JsonObject


@dataclass(frozen=True, kw_only=True)
class ApiKeyScheme:
    """A key in a header, the query or a cookie."""

    location: str
    """`header`, `query` or `cookie`."""
    name: str

    def __str__(self) -> str:
        return f"an API key in the {self.location} {self.name}"


@dataclass(frozen=True, kw_only=True)
class HttpScheme:
    """HTTP authentication (RFC 9110, section 11)."""

    scheme: str
    """In lower case: `bearer`, `basic`, ..."""

    def __str__(self) -> str:
        return f"HTTP {self.scheme.capitalize()}"


@dataclass(frozen=True, kw_only=True)
class OAuthScheme:
    """OAuth 2, or OpenID Connect on top of it."""

    token_url: str = ""
    """Of the client credentials flow; empty where the card names none."""

    def __str__(self) -> str:
        return "OAuth 2" if self.token_url else "OAuth 2 (the card names no token URL for client credentials)"


@dataclass(frozen=True, kw_only=True)
class OtherScheme:
    """A scheme that is not satisfied by what a request says: mutual TLS, or one that we do not know."""

    kind: str

    def __str__(self) -> str:
        return self.kind


Scheme: TypeAlias = ApiKeyScheme | HttpScheme | OAuthScheme | OtherScheme

Requirement: TypeAlias = Mapping[str, tuple[str, ...]]
"""Schemes that are needed together, with the scopes of each. An empty one is satisfied by nothing at all."""


@dataclass(frozen=True, kw_only=True)
class SecurityNeeds:
    """What a card asks of callers."""

    schemes: Mapping[str, Scheme] = field(default_factory=dict[str, Scheme])
    requirements: tuple[Requirement, ...] = ()
    """Any one of them is enough, the first preferred; without any, nothing is said about what is needed."""
    of_skills: tuple[tuple[Requirement, ...], ...] = ()
    """What single skills ask besides, each as above."""


def read_security(raw: JsonObject) -> SecurityNeeds:
    """Read what a card of either version, as it was received, asks; what cannot be read is taken as not said."""
    schemes: dict[str, Scheme] = {}
    for name, shaped in _object(raw, "securitySchemes", "security_schemes").items():
        if isinstance(shaped, Mapping):
            schemes[name] = _scheme(shaped)
    skills = raw.get("skills")
    of_skills = [_requirements(each) for each in _list(skills) if isinstance(each, Mapping)]
    return SecurityNeeds(
        schemes=schemes, requirements=_requirements(raw), of_skills=tuple(each for each in of_skills if each)
    )


def _scheme(shaped: JsonObject) -> Scheme:
    for member, read in (
        (_object(shaped, "apiKeySecurityScheme", "api_key_security_scheme"), _api_key),
        (_object(shaped, "httpAuthSecurityScheme", "http_auth_security_scheme"), _http),
        (_object(shaped, "oauth2SecurityScheme", "oauth2_security_scheme"), _oauth),
    ):
        if member:
            return read(member)
    if "openIdConnectSecurityScheme" in shaped or "open_id_connect_security_scheme" in shaped:
        return OAuthScheme()
    if "mtlsSecurityScheme" in shaped or "mtls_security_scheme" in shaped:
        return OtherScheme(kind="mutual TLS")
    # As in OpenAPI, so in 0.3.
    match shaped.get("type"):
        case "apiKey":
            return _api_key(shaped)
        case "http":
            return _http(shaped)
        case "oauth2":
            return _oauth(shaped)
        case "openIdConnect":
            return OAuthScheme()
        case "mutualTLS":
            return OtherScheme(kind="mutual TLS")
        case kind:
            return OtherScheme(kind=f"a scheme of the kind {kind}" if isinstance(kind, str) else "an unknown scheme")


def _api_key(shaped: JsonObject) -> Scheme:
    location, name = _text(shaped, "location") or _text(shaped, "in"), _text(shaped, "name")
    if location not in ("header", "query", "cookie") or not name:
        return OtherScheme(kind="an API key at a place that is not said")
    return ApiKeyScheme(location=location, name=name)


def _http(shaped: JsonObject) -> Scheme:
    return HttpScheme(scheme=_text(shaped, "scheme").lower() or "bearer")


def _oauth(shaped: JsonObject) -> Scheme:
    flow = _object(_object(shaped, "flows"), "clientCredentials", "client_credentials")
    return OAuthScheme(token_url=_text(flow, "tokenUrl") or _text(flow, "token_url"))


def _requirements(holder: JsonObject) -> tuple[Requirement, ...]:
    """Read `securityRequirements` of 1.0, else `security` of 0.3."""
    read: list[Requirement] = []
    for name in ("securityRequirements", "security_requirements", "security"):
        for shaped in _list(holder.get(name)):
            if isinstance(shaped, Mapping):
                inner = shaped.get("schemes")
                together = inner if isinstance(inner, Mapping) else shaped
                read.append({scheme: _scopes(scopes) for scheme, scopes in together.items()})
        if read:
            break
    return tuple(read)


def _scopes(shaped: Json) -> tuple[str, ...]:
    if isinstance(shaped, Mapping):  # protobuf's JSON of a list within a map
        shaped = shaped.get("list")
    return tuple(each for each in _list(shaped) if isinstance(each, str) and each)


def _list(value: Json) -> Sequence[Json]:
    return value if isinstance(value, Sequence) and not isinstance(value, str) else ()


def _object(holder: JsonObject, *names: str) -> JsonObject:
    for name in names:
        value = holder.get(name)
        if isinstance(value, Mapping):
            return value
    return {}


def _text(holder: JsonObject, name: str) -> str:
    value = holder.get(name)
    return value if isinstance(value, str) else ""
