"""Which signatures of cards we believe: the keys that the operator gave, and key sets at addresses that he allowed.

A card's `jku` is its author's word. It is followed to the card's own origin, which shows that the signer has a say
there, and where `key_urls` allows it; never elsewhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import httpx
import structlog

from interhub.adapters.egress import EgressLimits, check_url, fetch, same_origin
from interhub.adapters.errors import AdapterError, UnusableCard
from interhub.agent_cards import AgentCard, read_card
from interhub.agent_cards.errors import BadKey
from interhub.agent_cards.keys import VerifyKey, read_key_set
from interhub.agent_cards.signature import Signature, SignatureState
from interhub.agent_cards.signing import Claim, check_card, claims_of

_log = structlog.get_logger(__name__)

ALLOW_BAD_SIGNATURE = "allow_bad_signature"
"""Key in `Endpoint.options`: true takes the agent's card even where its signature does not fit."""

_MAX_SETS = 3
"""Key sets that are fetched for one card."""
_KEY_SET_BYTES = 256 * 1024


@dataclass(frozen=True, kw_only=True)
class CardTrust:
    """What is asked of a card's signatures."""

    mode: Literal["ignore", "check", "require"] = "check"
    """`check` refuses bad ones, `require` all but verified ones."""
    keys: tuple[VerifyKey, ...] = ()
    """Keys that are trusted wherever a card is found."""
    key_urls: tuple[str, ...] = ()
    """Key sets, by whole URL or by origin (`https://keys.example.com`), that a card's `jku` may name."""

    def allows(self, key_url: str, card_url: str) -> bool:
        """Return whether a `jku` of a card may be followed."""
        try:
            named = check_url(key_url)
        except AdapterError:
            return False
        if same_origin(named, httpx.URL(card_url)):
            return True
        if named.scheme != "https" and key_url not in self.key_urls:
            return False
        return any(key_url == each or _is_origin_of(each, named) for each in self.key_urls)


async def with_signature(
    http: httpx.AsyncClient,
    card: AgentCard,
    *,
    url: str,
    trust: CardTrust,
    limits: EgressLimits,
    allow_bad: bool = False,
) -> AgentCard:
    """Return a card with what its signatures are worth, read from what the good one covers only.

    `url` is where the card was found.

    Raises:
        UnusableCard: a signature does not fit the card, or none is verified where that is required.
    """
    if trust.mode == "ignore":
        return card
    claims = claims_of(card.raw)
    fetched = await _key_sets(http, claims, url, trust, limits)

    def find(claim: Claim) -> Sequence[VerifyKey]:
        return [*trust.keys, *fetched.get(claim.key_url, ())]

    checked = check_card(card.raw, find)
    signature = checked.signature
    if signature.state is SignatureState.INVALID and not allow_bad:
        raise UnusableCard(
            url, f"the agent card {url} has a {signature}; ask its owner, or add it with --allow-bad-signature"
        )
    if trust.mode == "require" and signature.state is not SignatureState.VERIFIED and not allow_bad:
        raise UnusableCard(
            url, f"the agent card {url} is {_lacking(signature)}, and `cards.signatures` requires a verified one"
        )
    if signature.state is not SignatureState.UNSIGNED:
        _log.info("a2a_card_signature", card=url, state=signature.state.value, key=signature.key_id, why=signature.why)
    if signature.state is SignatureState.VERIFIED and not signature.whole:
        card = read_card(checked.document, source=url)
    return replace(card, signature=signature)


async def _key_sets(
    http: httpx.AsyncClient, claims: Sequence[Claim], url: str, trust: CardTrust, limits: EgressLimits
) -> dict[str, tuple[VerifyKey, ...]]:
    """Fetch the key sets that claims name and that may be fetched, without any of the agent's credentials."""
    named = dict.fromkeys(claim.key_url for claim in claims if claim.key_url and trust.allows(claim.key_url, url))
    sets: dict[str, tuple[VerifyKey, ...]] = {}
    for key_url in list(named)[:_MAX_SETS]:
        try:
            found = await fetch(http, key_url, limits=replace(limits, max_body_bytes=_KEY_SET_BYTES))
            sets[key_url] = read_key_set(found.body, key_url) if found.status == 200 else ()
        except (AdapterError, BadKey) as error:
            _log.warning("card_key_set_unusable", card=url, key_set=key_url, why=str(error))
    return sets


def _is_origin_of(written: str, url: httpx.URL) -> bool:
    try:
        origin = check_url(written)
    except AdapterError:
        return False
    return origin.path in ("", "/") and not origin.query and same_origin(origin, url)


def _lacking(signature: Signature) -> str:
    return "not signed" if signature.state is SignatureState.UNSIGNED else str(signature)
