"""What an agent is shown so that it lets us in: the credentials that an operator gave for the schemes of its card.

An operator names a scheme and where its secret is found: `--credential key=${KEY}`. The card says where the secret
goes, and nobody but the interface that the card was found with is ever sent it. Values, by scheme:

    apiKey, http bearer     ${TOKEN}
    http basic              ${USER}:${PASSWORD}
    oauth2, openIdConnect   ${CLIENT_ID}:${CLIENT_SECRET}, or with @https://issuer.example/token at the end where the
                            token comes from another origin than the card; or ${TOKEN}, one that is there already
"""

import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

import httpx

from interhub.adapters.egress import check_headers, check_url, same_origin
from interhub.adapters.errors import BadEndpoint
from interhub.adapters.expand import expand
from interhub.agent_cards import Endpoint, Json
from interhub.agent_cards.security import (
    ApiKeyScheme,
    HttpScheme,
    OAuthScheme,
    OtherScheme,
    Requirement,
    Scheme,
    SecurityNeeds,
)

CREDENTIALS = "credentials"
"""Key in `Endpoint.options`: by the name of a scheme, what satisfies it; see the module's docstring."""

_REFERENCE = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}")
_PAIR = re.compile(r"(?P<first>(?:\$\{[^}]*\}|[^:$]|\$(?!\{))+):(?P<second>.+?)(?:@(?P<url>https?://.+))?", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Grant:
    """How a token is got (RFC 6749, section 4.4)."""

    token_url: str
    client_id: str
    client_secret: str = field(repr=False)
    scopes: tuple[str, ...] = ()
    by_operator: bool = False
    """The operator named the token URL, not the card."""


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """What goes along with every request to one interface."""

    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    query: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    cookies: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    grant: Grant | None = None
    """Where the bearer token comes from that goes into `Authorization`."""

    def __bool__(self) -> bool:
        return bool(self.headers or self.query or self.cookies or self.grant)


def check_given(endpoint: Endpoint) -> Mapping[str, str]:
    """Return the credentials of an endpoint as they were given, by scheme, nothing filled in.

    Raises:
        BadEndpoint: they are not texts by name, or one holds its secret instead of naming it.
    """
    given = endpoint.options.get(CREDENTIALS)
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise BadEndpoint(endpoint.url, f"{CREDENTIALS} must map schemes to texts")
    read: dict[str, str] = {}
    for name, value in given.items():
        if not isinstance(value, str) or not _REFERENCE.search(value):
            raise BadEndpoint(
                endpoint.url,
                f"the credential for {name!r} names no variable",
                f"put the secret into the hub's environment, and give {name}=${{VARIABLE}}: it is not stored here",
            )
        read[name] = value
    return read


def credentials_for(
    endpoint: Endpoint, needs: SecurityNeeds, *, card_url: str, env: Mapping[str, str] | None
) -> Credentials:
    """Return what satisfies a card's needs out of what was given with the endpoint.

    Without `env` nothing is filled in, only checked. Where nothing was given, nothing is sent and nothing is refused:
    many cards declare schemes that their agents never ask for.

    Raises:
        BadEndpoint: what was given is for no scheme of the card, does not satisfy what it asks for, or is not of the
            scheme's form; or a variable is not set.
    """
    given = check_given(endpoint)
    if not given:
        return Credentials()
    for name in given:
        scheme = needs.schemes.get(name)
        if scheme is None:
            raise BadEndpoint(endpoint.url, f"its card has no security scheme {name!r}", _offers(needs))
        if isinstance(scheme, OtherScheme) or (
            isinstance(scheme, HttpScheme) and scheme.scheme not in ("bearer", "basic")
        ):
            raise BadEndpoint(endpoint.url, f"its scheme {name!r} is {scheme}, which the hub cannot do", _offers(needs))
    wanted = _wanted(endpoint, needs, given)
    headers: dict[str, str] = {}
    query: dict[str, str] = {}
    cookies: dict[str, str] = {}
    grant: Grant | None = None
    for name, scopes in wanted.items():
        if name not in given:
            continue  # a header of the endpoint satisfies it
        scheme = needs.schemes[name]
        filled = _Filled(f"the credential for {name!r}", given[name], env)
        match scheme:
            case ApiKeyScheme(location="header"):
                headers[scheme.name] = filled.text()
            case ApiKeyScheme(location="query"):
                query[scheme.name] = filled.text()
            case ApiKeyScheme():
                cookies[scheme.name] = filled.text()
            case HttpScheme(scheme="basic"):
                user, password, _ = filled.pair()
                headers["Authorization"] = "Basic " + b64encode(f"{user}:{password}".encode()).decode("ascii")
            case HttpScheme():
                headers["Authorization"] = f"Bearer {filled.text()}"
            case OAuthScheme() if not filled.is_pair:
                headers["Authorization"] = f"Bearer {filled.text()}"
            case OAuthScheme():
                grant = _grant(filled, scheme, scopes, name=name, card_url=card_url)
            case OtherScheme():
                raise AssertionError("refused above")
    if env is not None:
        check_headers(endpoint.url, headers)
    return Credentials(headers=headers, query=query, cookies=cookies, grant=grant)


def asked_for(needs: SecurityNeeds) -> str:
    """Say what a card asks for and how it is given; empty where it asks for nothing."""
    if not needs.schemes:
        return ""
    alternatives = [each for each in needs.requirements if each] or [{name: ()} for name in needs.schemes]
    said = ", or ".join(" and ".join(_named(name, needs) for name in together) for together in alternatives[:4])
    flags = " ".join(f"--credential {name}=${{VARIABLE}}" for name in alternatives[0])
    return f"its card asks for {said}; add the agent again with {flags}"


def _wanted(endpoint: Endpoint, needs: SecurityNeeds, given: Mapping[str, str]) -> Requirement:
    """Return the schemes to satisfy, with their scopes: the first alternative of the card, and of each skill, we can.

    Raises:
        BadEndpoint: none of the card's can be satisfied.
    """
    at_hand = set(given) | {name for name, scheme in needs.schemes.items() if _in_headers(scheme, endpoint.headers)}
    wanted: dict[str, tuple[str, ...]] = {}
    possible = [each for each in needs.requirements if each.keys() <= at_hand]
    if needs.requirements and not possible:
        nearest = max(needs.requirements, key=lambda each: len(each.keys() & at_hand))
        missing = [name for name in nearest if name not in at_hand]
        raise BadEndpoint(
            endpoint.url,
            f"its card asks for {' and '.join(_named(name, needs) for name in nearest)}; "
            f"nothing was given for {', '.join(missing)}",
            "add it with " + " ".join(f"--credential {name}=${{VARIABLE}}" for name in missing),
        )
    # One that what was given is for comes before one that is satisfied by nothing at all.
    possible.sort(key=lambda each: not each.keys() & given.keys())
    chosen = possible[:1]
    for alternatives in needs.of_skills:
        chosen += [each for each in alternatives if each.keys() <= at_hand][:1]
    for together in chosen:
        for name, scopes in together.items():
            wanted[name] = tuple(dict.fromkeys((*wanted.get(name, ()), *scopes)))
    # What the operator gave is sent, also where the card asks for nothing that it is for.
    return wanted if wanted.keys() & given.keys() else dict.fromkeys(given, ())


def _in_headers(scheme: Scheme, headers: Mapping[str, str]) -> bool:
    names = {name.lower() for name in headers}
    match scheme:
        case ApiKeyScheme():
            return scheme.location == "header" and scheme.name.lower() in names
        case HttpScheme() | OAuthScheme():
            return "authorization" in names
        case OtherScheme():
            return False


def _grant(filled: "_Filled", scheme: OAuthScheme, scopes: tuple[str, ...], *, name: str, card_url: str) -> Grant:
    client_id, client_secret, named = filled.pair()
    token_url = named or scheme.token_url
    if not token_url:
        raise BadEndpoint(
            card_url,
            f"its scheme {name!r} names no token URL for client credentials",
            f"give it: --credential '{name}=${{ID}}:${{SECRET}}@https://issuer.example/token', or a token you have",
        )
    url = check_url(token_url)
    if not named and not same_origin(url, httpx.URL(card_url)):
        # The card is its author's word: it may not send our secret wherever it likes.
        raise BadEndpoint(
            card_url,
            f"its scheme {name!r} takes tokens from {token_url}, another origin than the card's",
            f"if that is right, say so: --credential '{name}=${{ID}}:${{SECRET}}@{token_url}'",
        )
    return Grant(
        token_url=token_url,
        client_id=client_id,
        client_secret=client_secret,
        scopes=scopes,
        by_operator=bool(named),
    )


class _Filled:
    """One credential, read by its template, so that what is filled in cannot change its form."""

    def __init__(self, what: str, template: str, env: Mapping[str, str] | None) -> None:
        self._what = what
        self._template = template
        self._env = env
        self._pair = _PAIR.fullmatch(template)

    @property
    def is_pair(self) -> bool:
        return self._pair is not None

    def text(self) -> str:
        return self._fill(self._template)

    def pair(self) -> tuple[str, str, str]:
        """Return the two halves, and the URL after them or nothing."""
        if self._pair is None:
            raise BadEndpoint(self._what, "is not a pair", "give ${NAME}:${SECRET}")
        return self._fill(self._pair["first"]), self._fill(self._pair["second"]), self._pair["url"] or ""

    def _fill(self, template: str) -> str:
        return template if self._env is None else expand(template, self._env).strip()


def cookie_header(cookies: Mapping[str, str]) -> str:
    """Write the header `Cookie` (RFC 6265, section 4.2)."""
    return "; ".join(f"{name}={quote(value, safe=_COOKIE_OCTETS)}" for name, value in cookies.items())


_COOKIE_OCTETS = "!#$%&'()*+-./:<=>?@[]^_`{|}~"


def _named(name: str, needs: SecurityNeeds) -> str:
    scheme = needs.schemes.get(name)
    return f"{name} ({scheme if scheme is not None else 'which it does not describe'})"


def _offers(needs: SecurityNeeds) -> str:
    offered = ", ".join(_named(name, needs) for name in needs.schemes)
    return f"it has {offered}" if offered else "it has none; give what the agent wants as a header"


def with_credentials(options: Mapping[str, Json], *, ours: bool) -> dict[str, Json]:
    """Return an interface's options: the credentials stay only where they may be sent."""
    return {name: value for name, value in options.items() if ours or name != CREDENTIALS}
