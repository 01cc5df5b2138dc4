"""Signatures of agent cards: JWS (RFC 7515) with the payload left out, over canonical JSON (A2A 1.0, section 8.4).

There are two opinions of what is signed. The specification says the card as sent, without `signatures`, in canonical
JSON. Both SDKs sign what their types keep of it: fields of 1.0 only, and no empty ones, so that in a card for both
versions `url` and the other fields of 0.3 can be changed unseen (A2A issues 2122 and 2249). We sign both where they
differ, each as a signature of its own, and of a card that only the second covers we read only what it covers.
"""

import binascii
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, cast

import orjson
from jwt import PyJWTError
from jwt.api_jws import PyJWS
from jwt.utils import base64url_decode, base64url_encode

from .canonical import canonical
from .errors import CardError, CardInvalid, Problem
from .json_value import Json, JsonObject
from .keys import ALGORITHMS, SigningKey, VerifyKey
from .signature import Signature, SignatureState

MAX_SIGNATURES = 10
"""Signatures of one card that are looked at."""

_JWS = PyJWS(algorithms=list(ALGORITHMS))
_MAX_PROTECTED = 4096
_NEVER = ("none", "HS256", "HS384", "HS512")
"""Algorithms in which a card cannot be signed: anybody could who can verify it."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What one signature says of itself. Nothing of it is true before it is verified."""

    key_id: str
    algorithm: str
    key_url: str
    """`jku`: where its author says that the key is."""
    protected: str
    signature: str


FindKeys = Callable[[Claim], Sequence[VerifyKey]]
"""Returns the keys that we trust for a claim, or none."""


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A card whose signatures were looked at."""

    document: JsonObject
    """What may be read: the card, or what of it the good signature covers."""
    signature: Signature


def sign_card(document: JsonObject, key: SigningKey, *, key_url: str = "") -> dict[str, Json]:
    """Return a card in A2A JSON with our signatures after those that it has.

    `key_url` is written into them as `jku`.

    Raises:
        CardInvalid: the A2A SDK does not read the card, so that nobody could verify it.
    """
    payloads = [whole_payload(document)]
    core = core_payload(document)
    if core != payloads[0]:
        payloads.append(core)
    known = document.get("signatures")
    signatures: list[Json] = list(known) if isinstance(known, Sequence) and not isinstance(known, str) else []
    header: dict[str, Json] = {"kid": key.id, "typ": "JOSE"}
    if key_url:
        header["jku"] = key_url
    for payload in payloads:
        protected, signature = sign_detached(payload, key, header)
        signatures.append({"protected": protected, "signature": signature})
    return {**document, "signatures": signatures}


def sign_detached(payload: bytes, key: SigningKey, header: Mapping[str, Json]) -> tuple[str, str]:
    """Return the protected header and the signature of a JWS, both in base64url; the payload is not in it."""
    token = _JWS.encode(payload, key.private, algorithm=key.algorithm, headers=dict(header))
    protected, _, signature = token.split(".")
    return protected, signature


def claims_of(document: JsonObject) -> tuple[Claim, ...]:
    """Return what a card's signatures say of themselves; one that is not a JWS has no algorithm."""
    given = document.get("signatures")
    if isinstance(given, (str, Mapping)) or not isinstance(given, Sequence):
        return ()
    return tuple(_claim(one) for one in given[:MAX_SIGNATURES] if isinstance(one, Mapping))


def check_card(document: JsonObject, find_keys: FindKeys) -> Checked:
    """Check a card's signatures: one good one is enough (A2A 1.0, section 8.4.3)."""
    claims = claims_of(document)
    if not claims:
        return Checked(document=document, signature=Signature())
    payloads = _payloads(document)
    unverifiable: list[str] = []
    invalid: list[str] = []
    for claim in claims:
        if not claim.key_id or not claim.algorithm or claim.algorithm in _NEVER:
            invalid.append(_impossible(claim))
            continue
        if claim.algorithm not in ALGORITHMS:
            unverifiable.append(f"{claim.algorithm[:20]} is none of {', '.join(ALGORITHMS)}")
            continue
        keys = [key for key in find_keys(claim) if key.id == claim.key_id and key.algorithm == claim.algorithm]
        if not keys:
            unverifiable.append(f"key {claim.key_id[:80]!r} is not known" + _named(claim))
            continue
        for key in keys:
            for whole, payload in payloads:
                if _holds(claim, key, payload):
                    good = Signature(state=SignatureState.VERIFIED, key_id=key.id, key_source=key.source, whole=whole)
                    return Checked(document=document if whole else orjson.loads(payload), signature=good)
        invalid.append(f"it does not fit the card, by key {claim.key_id[:80]!r}")
    state = SignatureState.INVALID if invalid else SignatureState.UNVERIFIABLE
    why = "; ".join(dict.fromkeys(invalid or unverifiable))
    return Checked(document=document, signature=Signature(state=state, key_id=claims[0].key_id[:80], why=why))


def whole_payload(document: JsonObject) -> bytes:
    """Return what a signature of the card as it was sent covers.

    Raises:
        NotCanonical: a value has no canonical JSON.
    """
    return canonical({name: value for name, value in document.items() if name != "signatures"})


def core_payload(document: JsonObject) -> bytes:
    """Return what a signature of both SDKs covers: what A2A 1.0 knows of the card, without anything empty.

    Raises:
        CardInvalid: the A2A SDK does not read the card.
        NotCanonical: a value has no canonical JSON.
    """
    # Imported late: the SDK's types take a fifth of a second, and few cards are signed.
    from a2a.client.card_resolver import parse_agent_card
    from google.protobuf.json_format import MessageToDict, ParseError

    copy = cast("dict[str, Any]", deepcopy(dict(document)))  # for the SDK edits what it is given
    copy.pop("signatures", None)
    try:
        parsed = parse_agent_card(copy)
    except (ParseError, ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise CardInvalid(
            "to be signed", [Problem("(whole card)", f"the A2A SDK does not read it: {error}")]
        ) from error
    return canonical(_without_empty(MessageToDict(parsed)) or {})


def _payloads(document: JsonObject) -> list[tuple[bool, bytes]]:
    payloads: list[tuple[bool, bytes]] = []
    for whole, written in ((True, whole_payload), (False, core_payload)):
        try:
            payloads.append((whole, written(document)))
        except CardError:
            continue
    return payloads


def _without_empty(value: Json) -> Json:
    match value:
        case str():
            return value or None
        case Mapping():
            kept = {name: left for name, each in value.items() if (left := _without_empty(each)) is not None}
            return kept or None
        case Sequence():
            return [left for each in value if (left := _without_empty(each)) is not None] or None
        case _:
            return value


def _claim(shaped: JsonObject) -> Claim:
    protected, signature = shaped.get("protected"), shaped.get("signature")
    header: JsonObject = {}
    if isinstance(protected, str) and isinstance(signature, str) and len(protected) <= _MAX_PROTECTED:
        try:
            read: Json = orjson.loads(base64url_decode(protected))
        except (binascii.Error, ValueError):
            read = None
        # What is critical, or how the payload is encoded, we would have to understand (RFC 7515, 4.1.11; RFC 7797).
        if isinstance(read, Mapping) and not {"crit", "b64"} & read.keys():
            header = read
    return Claim(
        key_id=_text(header, "kid"),
        algorithm=_text(header, "alg"),
        key_url=_text(header, "jku"),
        protected=protected if isinstance(protected, str) else "",
        signature=signature if isinstance(signature, str) else "",
    )


def _text(header: JsonObject, name: str) -> str:
    value = header.get(name)
    return value if isinstance(value, str) else ""


def _impossible(claim: Claim) -> str:
    if not claim.algorithm:
        return "it is not a JWS"
    return f"it claims the algorithm {claim.algorithm[:20]!r}" if claim.algorithm in _NEVER else "it names no key"


def _named(claim: Claim) -> str:
    return f" (it names the key set {claim.key_url[:200]})" if claim.key_url else ""


def _holds(claim: Claim, key: VerifyKey, payload: bytes) -> bool:
    token = f"{claim.protected}.{base64url_encode(payload).decode()}.{claim.signature}"
    try:
        _JWS.decode(token, key.public, algorithms=[key.algorithm])
    except (PyJWTError, ValueError):
        return False
    return True
