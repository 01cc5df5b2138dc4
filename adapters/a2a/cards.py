"""Finds an agent's card from whatever address a person has: the card's own, the agent's, or one of its interfaces'."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import anyio
import httpx
import structlog

from interhub.adapters.egress import EgressLimits, Fetched, check_url, same_origin
from interhub.adapters.errors import (
    AdapterError,
    AnswerTooLarge,
    BadEndpoint,
    ProtocolViolation,
    RemoteDenied,
    RemoteTimeout,
    RemoteUnavailable,
    UnusableCard,
)
from interhub.agent_cards import AgentCard, Binding, CardError, CardInvalid, CardTooLarge, Endpoint, NotACard, read_card

from .card_cache import CardCache
from .credentials import CREDENTIALS, with_credentials
from .grpc_target import TLS, grpc_installed, grpc_target
from .signatures import ALLOW_BAD_SIGNATURE, CardTrust, with_signature
from .wire import WireVersion, wire_version

_log = structlog.get_logger(__name__)

WELL_KNOWN = ("/.well-known/agent-card.json", "/.well-known/agent.json")
"""Where a card is found under an agent's address: A2A 1.0, section 8.2, and A2A 0.3's first form."""

CARD_URL = "card_url"
"""Key in `Endpoint.options` of the interfaces that a card names: where that card was found."""

SPOKEN = (Binding.A2A_JSONRPC, Binding.A2A_REST)
"""The bindings over HTTP; gRPC is spoken as well where the extra is installed."""

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_NO_GRPC = "gRPC is not spoken by this installation"
_ANY_ADDRESS = frozenset({"0.0.0.0", "::"})  # noqa: S104  # recognised in cards, never bound


@dataclass(frozen=True)
class _Place:
    """One address to look at."""

    url: str
    must_name: str = ""
    """The card counts only if it names this interface: we are looking further up than we were told to."""


async def find_card(
    http: httpx.AsyncClient,
    endpoint: Endpoint,
    *,
    headers: Mapping[str, str],
    limits: EgressLimits,
    trust: CardTrust | None = None,
    cache: CardCache | None = None,
) -> AgentCard:
    """Return the card of the agent at `endpoint.url`, its `interfaces` being those that we speak, best first.

    Looked at are, in this order: where the card was found before, the well-known places below the address, the address
    itself, and the well-known places above it, if the card there names the address as one of its interfaces.
    `headers` go along, and onto every interface of the address's origin, not onto others: the card's author could have
    named any server. Its signatures are checked by `trust`. A fresh card in `cache` is used unasked, but for an agent
    that is known: looking at it again is asking it.

    Raises:
        RemoteUnavailable: nothing answers there.
        RemoteDenied: the card is shown to others only.
        AnswerTooLarge: what is there is larger than a card may be.
        ProtocolViolation: what answers is not an A2A agent; the message says what was found at each place.
        UnusableCard: it is one, and its card lacks what is needed, or has a bad signature.
        BadEndpoint: the address, or every interface of the card, is unusable for us.
    """
    with anyio.move_on_after(limits.total_s):
        found: dict[str, list[str]] = {}
        worst: AdapterError | None = None
        looked = 0
        cards, again = cache or CardCache(), CARD_URL in endpoint.options
        for place in _places(endpoint):
            looked += 1
            try:
                fetched = await cards.fetch(http, place.url, headers=_asking(headers), limits=limits, ask=again)
            except AnswerTooLarge as error:
                worst = worst or error
                found.setdefault(f"more than {error.limit:,} bytes", []).append(place.url)
                continue
            if fetched.status in (401, 403):
                wants = fetched.headers.get("www-authenticate", "")
                why = f"HTTP {fetched.status}" + (f", it wants {wants[:200]}" if wants else "")
                raise RemoteDenied(place.url, f"{why}; give the agent's credentials as headers", code=fetched.status)
            if fetched.status in (429, 502, 503, 504):
                raise RemoteUnavailable(place.url, f"HTTP {fetched.status}; try again later")
            if fetched.status != 200:
                found.setdefault(f"HTTP {fetched.status}", []).append(place.url)
                continue
            try:
                card = read_card(fetched.body, source=fetched.url)
            except CardError as error:
                cards.forget(place.url)
                if not place.must_name and (worst is None or _is_card(fetched)):
                    worst = _card_error(error, fetched)
                found.setdefault(_briefly(error), []).append(place.url)
                continue
            if place.must_name and not _names(card, place.must_name):
                what = f"the card of {card.name!r}, which does not name this address"
                found.setdefault(what, []).append(place.url)
                continue
            try:
                return await checked_card(http, card, endpoint, url=fetched.url, limits=limits, trust=trust)
            except AdapterError:
                cards.forget(place.url)
                raise
        if worst is not None and (looked == 1 or isinstance(worst, UnusableCard)):
            raise worst
        raise ProtocolViolation(
            endpoint.url,
            f"no agent card was found ({_places_in_words(found)}); give the card's own address, "
            f"usually https://host{WELL_KNOWN[0]}",
        )
    raise RemoteTimeout(endpoint.url, limits.total_s)


async def checked_card(
    http: httpx.AsyncClient,
    card: AgentCard,
    endpoint: Endpoint,
    *,
    url: str,
    limits: EgressLimits,
    trust: CardTrust | None = None,
) -> AgentCard:
    """Return a card that was found at `url` with its signatures checked, and the interfaces that we can use.

    Raises:
        UnusableCard: it has a bad signature, or none where one is required.
        BadEndpoint: every interface is unusable for us.
    """
    card = await with_signature(
        http,
        card,
        url=url,
        trust=trust or CardTrust(),
        limits=limits,
        allow_bad=endpoint.options.get(ALLOW_BAD_SIGNATURE) is True,
    )
    return _usable(card, endpoint, httpx.URL(url))


def check_binding(endpoint: Endpoint) -> None:
    """Refuse an endpoint that this adapter cannot speak to.

    Raises:
        BadEndpoint: the binding or version is none that we speak.
    """
    if endpoint.binding is Binding.A2A_GRPC:
        if not grpc_installed():
            raise BadEndpoint(endpoint.url, _NO_GRPC, "install interhub[grpc], or use another interface of the agent")
        grpc_target(endpoint)
    elif endpoint.binding not in SPOKEN:
        raise BadEndpoint(endpoint.url, f"{endpoint.binding.value} is not a binding of A2A")
    if endpoint.version and wire_version(endpoint.version) is None:
        raise BadEndpoint(endpoint.url, f"A2A {endpoint.version} is not a version we speak", "1.x and 0.3 are")


def interface_for(endpoint: Endpoint, card: AgentCard) -> Endpoint:
    """Return the interface to connect to for an endpoint that may name it, or only the agent or its card.

    Raises:
        BadEndpoint: the binding or version is none that we speak.
    """
    check_binding(endpoint)
    over_grpc = [each for each in card.interfaces if each.binding is Binding.A2A_GRPC]
    if endpoint.binding is Binding.A2A_GRPC:
        named = next((each for each in over_grpc if each.url == endpoint.url), None)
        if named is None:
            return endpoint
        version, tenant = endpoint.version or named.version, endpoint.tenant or named.tenant
        return replace(endpoint, version=version, tenant=tenant)
    asked = check_url(endpoint.url)
    if over_grpc and len(over_grpc) == len(card.interfaces):
        # The agent's or the card's address was given, and the card names nothing but gRPC.
        return replace(over_grpc[0], headers=endpoint.headers, options={**over_grpc[0].options, **endpoint.options})
    spoken = [each for each in card.interfaces if each.binding in SPOKEN]
    spoken.sort(key=lambda each: wire_version(each.version) is not WireVersion.V1)
    for each in sorted(spoken, key=lambda each: each.binding is not endpoint.binding):
        if _same_address(asked, httpx.URL(each.url)):
            return replace(
                endpoint,
                binding=each.binding,
                version=endpoint.version or each.version,
                tenant=endpoint.tenant or each.tenant,
            )
    for each in spoken:
        # The agent's or the card's address: it is the card that names the interface.
        if not endpoint.version and same_origin(asked, httpx.URL(each.url)):
            return replace(endpoint, binding=each.binding, url=each.url, version=each.version, tenant=each.tenant)
    return endpoint


def moved(endpoint: Endpoint, card: AgentCard) -> Endpoint:
    """Return an endpoint that a card named, as the agent's card names it now.

    It stays within its origin, where its headers and credentials are meant for, and with its binding and address where
    the card still names these. One that the operator wrote stays as it was written.
    """
    if CARD_URL not in endpoint.options:
        return endpoint
    named = [each for each in card.interfaces if _same_server(endpoint, each)]
    if not named:
        return endpoint
    # They are in the order of our preference, which decides between two versions at one address.
    now = min(named, key=lambda each: (each.binding is not endpoint.binding, each.url != endpoint.url))
    return replace(endpoint, binding=now.binding, url=now.url, version=now.version, tenant=now.tenant)


def _same_server(one: Endpoint, other: Endpoint) -> bool:
    if Binding.A2A_GRPC in (one.binding, other.binding):
        return one.binding is other.binding and grpc_target(one) == grpc_target(other)
    return same_origin(httpx.URL(one.url), httpx.URL(other.url))


def _places(endpoint: Endpoint) -> list[_Place]:
    places: list[_Place] = []
    known = endpoint.options.get(CARD_URL)
    if isinstance(known, str) and known:
        places.append(_Place(known))
    if endpoint.binding is Binding.A2A_GRPC and "://" not in endpoint.url:
        if places:
            return places
        raise BadEndpoint(
            endpoint.url,
            "a gRPC address alone does not say what the agent can",
            "give the address of its card, usually https://host" + WELL_KNOWN[0],
        )
    asked = check_url(endpoint.url)
    url = str(asked)
    path = asked.path.rstrip("/")
    if path.endswith(".json") or "/.well-known/" in path or asked.query:
        return [*places, _Place(url)]
    places += [_Place(_at(asked, path + well_known)) for well_known in WELL_KNOWN]
    if path:
        places.append(_Place(url))
    while path:
        path = path.rpartition("/")[0]
        places += [_Place(_at(asked, path + well_known), must_name=url) for well_known in WELL_KNOWN]
    unique: dict[str, _Place] = {}
    for place in places:
        unique.setdefault(place.url, place)
    return list(unique.values())[:12]


def _at(url: httpx.URL, path: str) -> str:
    return str(url.copy_with(path=path, query=None, fragment=None))


def _asking(headers: Mapping[str, str]) -> dict[str, str]:
    return {**headers, "A2A-Version": WireVersion.V1.value, "Accept": "application/json, application/a2a+json"}


def _is_card(fetched: Fetched) -> bool:
    return fetched.body.lstrip()[:1] == b"{"


def _briefly(error: CardError) -> str:
    return error.found if isinstance(error, NotACard) else "a card that cannot be used"


def _places_in_words(found: Mapping[str, list[str]]) -> str:
    """Return what was found where: the address once, and of all others their paths."""
    said: list[str] = []
    for what, urls in found.items():
        places = [httpx.URL(url).raw_path.decode() if said or n else url for n, url in enumerate(urls)]
        said.append(f"{', '.join(places)}: {what}")
    return "; ".join(said)


def _card_error(error: CardError, fetched: Fetched) -> AdapterError:
    if isinstance(error, CardTooLarge):
        return AnswerTooLarge(fetched.url, error.size, error.limit, "the agent card")
    if isinstance(error, CardInvalid):
        return UnusableCard(fetched.url, str(error))
    return ProtocolViolation(fetched.url, str(error))


def _names(card: AgentCard, url: str) -> bool:
    asked = httpx.URL(url)
    return any(_same_address(asked, httpx.URL(each.url)) for each in card.interfaces if each.binding in SPOKEN)


def _same_address(one: httpx.URL, other: httpx.URL) -> bool:
    return same_origin(one, other) and one.path.rstrip("/") == other.path.rstrip("/") and one.query == other.query


def _usable(card: AgentCard, endpoint: Endpoint, card_url: httpx.URL) -> AgentCard:
    """Keep the interfaces that we can use: the versions that we prefer first, otherwise in the agent's order."""
    usable: list[Endpoint] = []
    refused: list[str] = []
    for each in card.interfaces:
        if each.binding is Binding.A2A_GRPC:
            try:
                usable.append(_over_grpc(each, endpoint, card_url))
            except BadEndpoint as error:
                refused.append(f"{each.binding.value} at {each.url} ({error.why})")
            continue
        if each.binding not in SPOKEN:
            refused.append(f"{each.binding.value} at {each.url} (not spoken by this installation)")
            continue
        url = httpx.URL(each.url)
        if url.host in _ANY_ADDRESS:
            # The address that the server binds, taken for the one it is reached at: a frequent slip.
            url = url.copy_with(host=card_url.host)
            _log.info("a2a_card_names_any_address", card=str(card_url), interface=each.url, used=str(url))
        elif url.host in _LOOPBACK and card_url.host not in _LOOPBACK:
            refused.append(f"{each.url} (an address that only its own machine can reach)")
            continue
        ours = same_origin(url, card_url)
        if not ours and (endpoint.headers or CREDENTIALS in endpoint.options):
            _log.warning("a2a_credentials_withheld", card=str(card_url), interface=str(url), why="another origin")
        usable.append(
            replace(
                each,
                url=str(url),
                headers=endpoint.headers if ours else {},
                options={**with_credentials(endpoint.options, ours=ours), CARD_URL: str(card_url)},
            )
        )
    if not usable:
        raise BadEndpoint(
            str(card_url),
            f"the card of {card.name!r} names no interface that we can use: {'; '.join(refused)}",
            "ask its owner for a JSONRPC or HTTP+JSON interface at a public address",
        )
    if CREDENTIALS in endpoint.options:
        admitted = [each for each in usable if CREDENTIALS in each.options]
        if not admitted:
            elsewhere = ", ".join(each.url for each in usable)
            raise BadEndpoint(
                str(card_url),
                f"the card of {card.name!r} names interfaces elsewhere, or without TLS, only ({elsewhere}), "
                "and credentials are not sent to another host than the card's, or in the clear",
                "add the agent by the address of its interface, if you trust that",
            )
        usable = admitted
    # HTTP first: proxies and the hub's own limits are made for it.
    usable.sort(key=lambda each: (each.binding is Binding.A2A_GRPC, wire_version(each.version) is not WireVersion.V1))
    return replace(card, interfaces=tuple(usable))


def _over_grpc(interface: Endpoint, endpoint: Endpoint, card_url: httpx.URL) -> Endpoint:
    """Return a gRPC interface as we use it.

    Raises:
        BadEndpoint: it cannot be used, or not from here, or not by this installation.
    """
    options = {**endpoint.options, CARD_URL: str(card_url)}
    target = grpc_target(replace(interface, options=options))
    if not grpc_installed():
        raise BadEndpoint(interface.url, _NO_GRPC, "install interhub[grpc]")
    if target.host in _LOOPBACK and card_url.host not in _LOOPBACK:
        raise BadEndpoint(interface.url, "an address that only its own machine can reach")
    # The port is always another one: whoever answers for the host may have what was given for it.
    at_home = target.host == card_url.host or {target.host, card_url.host} <= _LOOPBACK
    # What a card says is not enough to send in the clear what was given for an https address.
    sealed = target.tls or card_url.scheme == "http" or target.host in _LOOPBACK or endpoint.options.get(TLS) is False
    ours = at_home and sealed
    if not ours and (endpoint.headers or CREDENTIALS in endpoint.options):
        why = "without TLS" if at_home else "another host"
        _log.warning("a2a_credentials_withheld", card=str(card_url), interface=interface.url, why=why)
    kept = with_credentials(options, ours=ours)
    return replace(interface, headers=endpoint.headers if ours else {}, options=kept)
