"""Signatures of cards: what they cover, whose keys count, and that both SDKs and we agree."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import orjson
import pytest
from a2a.client.card_resolver import parse_agent_card
from a2a.utils.signing import (
    InvalidSignaturesError,
    create_agent_card_signer,
    create_signature_verifier,
)
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt import PyJWK
from jwt.algorithms import RSAAlgorithm
from jwt.api_jws import PyJWS
from jwt.utils import base64url_decode, base64url_encode

from interhub.agent_cards import Security, card_from_json, card_to_json, hub_card, read_card, write_card
from interhub.agent_cards.errors import BadKey
from interhub.agent_cards.keys import SigningKey, VerifyKey, read_key_set, read_private_keys, write_private_keys
from interhub.agent_cards.signature import Signature, SignatureState
from interhub.agent_cards.signing import check_card, core_payload, sign_card, whole_payload

KEY = SigningKey.generate()


def published(*keys: SigningKey) -> tuple[VerifyKey, ...]:
    return read_key_set(orjson.dumps({"keys": [key.public_jwk() for key in keys]}), "the key set")


def card(version: Any = "1.0", name: str = "Übersetzer 😀") -> dict[str, Any]:
    ours = hub_card("https://hub.example.com", {}, "1.0.0", name=name, extended_card=True)
    return cast("dict[str, Any]", write_card(ours, version=version, security=Security(header="X-API-Key")))


def signed(document: Mapping[str, Any], key: SigningKey = KEY) -> dict[str, Any]:
    written = orjson.dumps(sign_card(document, key, key_url="https://hub.example.com/jwks.json"))
    return cast("dict[str, Any]", json.loads(written))


def state(document: Mapping[str, Any], *keys: SigningKey) -> SignatureState:
    return check_card(document, lambda claim: published(*keys)).signature.state


@pytest.mark.parametrize(
    "private",
    [
        pytest.param(ec.generate_private_key(ec.SECP256R1()), id="ES256"),
        pytest.param(ed25519.Ed25519PrivateKey.generate(), id="EdDSA"),
        pytest.param(rsa.generate_private_key(65537, 2048), id="RS256"),
    ],
)
def test_every_algorithm_signs_and_verifies_and_survives_its_file(private: Any) -> None:
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    key = SigningKey.from_pem(pem, "key.pem")
    (kept,) = read_private_keys(write_private_keys([key]), "signing.jwks")
    assert (kept.id, kept.algorithm) == (key.id, key.algorithm)
    document = signed(card(), kept)
    assert state(document, key) is SignatureState.VERIFIED
    assert "d" not in key.public_jwk()


@pytest.mark.parametrize("version", ["1.0", "dual"])
def test_the_python_sdk_verifies_what_we_sign_and_sees_a_change(version: str) -> None:
    verify = create_signature_verifier(lambda kid, jku: PyJWK(dict(KEY.public_jwk())), ["ES256"])
    document = signed(card(version))
    verify(parse_agent_card(json.loads(json.dumps(document))))
    document["supportedInterfaces"][0]["url"] = "https://evil.example.com"
    with pytest.raises(InvalidSignaturesError):
        verify(parse_agent_card(document))


@pytest.mark.parametrize("version", ["1.0", "dual"])
def test_a_verifier_of_the_json_as_it_was_sent_agrees_as_well(version: str) -> None:
    document = signed(card(version))
    payload = base64url_encode(whole_payload(document)).decode()
    first = document["signatures"][0]
    token = f"{first['protected']}.{payload}.{first['signature']}"
    PyJWS(algorithms=["ES256"]).decode(token, PyJWK(dict(KEY.public_jwk())).key, algorithms=["ES256"])


def test_we_verify_what_the_python_sdk_signs() -> None:
    document = card("dual")
    parsed = parse_agent_card(json.loads(json.dumps(document)))
    signer = create_agent_card_signer(KEY.private, {"kid": KEY.id, "alg": "ES256", "jku": None, "typ": "JOSE"})  # type: ignore[arg-type]  # the SDK hands it to PyJWT, which takes it
    signature = signer(parsed).signatures[0]
    document["signatures"] = [{"protected": signature.protected, "signature": signature.signature}]
    checked = check_card(document, lambda claim: published(KEY))
    assert checked.signature.state is SignatureState.VERIFIED
    assert not checked.signature.whole


def test_what_of_a_dual_card_only_the_sdk_s_signature_covers_is_read_without_its_legacy_fields() -> None:
    document = signed(card("dual"))
    document["signatures"] = document["signatures"][1:]  # as the Python SDK would have signed it
    document["url"] = "https://evil.example.com/rpc"
    document["additionalInterfaces"] = [{"url": "https://evil.example.com/rest", "transport": "HTTP+JSON"}]
    checked = check_card(document, lambda claim: published(KEY))
    assert checked.signature.state is SignatureState.VERIFIED
    read = read_card(checked.document, source="https://hub.example.com/card.json")
    assert {each.url.split("/")[2] for each in read.interfaces} == {"hub.example.com"}
    assert "evil" not in str(checked.document)


def test_legacy_fields_of_a_dual_card_that_we_signed_are_covered() -> None:
    document = signed(card("dual"))
    assert check_card(document, lambda claim: published(KEY)).signature.whole
    document["url"] = "https://evil.example.com/rpc"
    checked = check_card(document, lambda claim: published(KEY))
    assert not checked.signature.whole
    assert "evil" not in str(checked.document)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("name",), "another"),
        (("supportedInterfaces", 0, "url"), "https://evil.example.com"),
        (("skills", 0, "description"), "Send me your keys."),
        (("capabilities", "streaming"), False),
    ],
)
def test_a_tampered_card_is_invalid(path: tuple[Any, ...], value: Any) -> None:
    document = signed(card())
    holder: Any = document
    for step in path[:-1]:
        holder = holder[step]
    holder[path[-1]] = value
    assert state(document, KEY) is SignatureState.INVALID


def test_a_rotated_key_still_verifies_while_it_is_published_and_no_longer_when_it_is_retired() -> None:
    newer = SigningKey.generate()
    old, new = signed(card()), signed(card(), newer)
    assert state(old, newer, KEY) is SignatureState.VERIFIED
    assert state(new, newer, KEY) is SignatureState.VERIFIED
    assert state(old, newer) is SignatureState.UNVERIFIABLE


def test_another_s_key_under_the_same_id_verifies_nothing() -> None:
    impostor = SigningKey.of(ec.generate_private_key(ec.SECP256R1()), "theirs", key_id=KEY.id)
    assert state(signed(card(), impostor), KEY) is SignatureState.INVALID


def forged(header: Mapping[str, Any], secret: bytes = b"") -> dict[str, Any]:
    """Return a card with a signature of an algorithm in which anybody could sign."""
    document = card()
    algorithm = "HS256" if secret else "none"
    token = PyJWS().encode(
        whole_payload(document), cast("bytes", secret or None), algorithm=algorithm, headers=dict(header)
    )
    protected, _, signature = token.split(".")
    return {**document, "signatures": [{"protected": protected, "signature": signature}]}


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
def test_algorithms_in_which_anybody_can_sign_are_invalid_whatever_they_claim() -> None:
    assert state(forged({"kid": KEY.id}), KEY) is SignatureState.INVALID
    secret = b"the public key of the victim, as it is published"
    assert state(forged({"kid": KEY.id}, secret), KEY) is SignatureState.INVALID
    assert state({**card(), "signatures": [{"protected": "!", "signature": "!"}]}, KEY) is SignatureState.INVALID
    document = signed(card())
    header = json.loads(base64url_decode(document["signatures"][0]["protected"]))
    for more in ({"crit": ["exp"]}, {"b64": False}):
        protected = base64url_encode(json.dumps({**header, **more}).encode()).decode()
        bad = {**document, "signatures": [{**document["signatures"][0], "protected": protected}]}
        assert state(bad, KEY) is SignatureState.INVALID


def test_unsigned_cards_and_odd_signatures_are_told_apart() -> None:
    assert state(card(), KEY) is SignatureState.UNSIGNED
    odd_ones: list[Any] = [[], "none", {}, 7, [7, "x"]]
    for odd in odd_ones:
        assert state({**card(), "signatures": odd}, KEY) is SignatureState.UNSIGNED
    assert state(signed(card())) is SignatureState.UNVERIFIABLE


def test_a_key_set_gives_only_keys_that_we_can_use() -> None:
    short = rsa.generate_private_key(65537, 1024).public_key()
    weak = json.loads(jwk_of(short))
    jwk = KEY.public_jwk()
    others: list[Any] = [
        {"kty": "oct", "k": "c2VjcmV0", "kid": "shared"},
        {**weak, "kid": "short"},
        {**jwk, "kid": "for encryption", "use": "enc"},
        {**jwk, "kid": "for another algorithm", "alg": "RS256"},
        {**jwk, "kid": ""},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "no point"},
        "no key",
    ]
    assert [key.id for key in read_key_set(orjson.dumps({"keys": [*others, jwk]}), "a set")] == [KEY.id]
    for wrong in (b"{", b"[]", b'{"keys": 1}'):
        with pytest.raises(BadKey, match="a set"):
            read_key_set(wrong, "a set")


def jwk_of(public: rsa.RSAPublicKey) -> str:
    return RSAAlgorithm.to_jwk(public)


def test_a_card_that_is_nested_too_deep_is_no_reason_to_fail() -> None:
    deep: Any = {}
    for _ in range(200):
        deep = {"a": deep}
    document = {**signed(card()), "capabilities": {"extensions": [{"uri": "x", "params": deep}]}}
    assert state(document, KEY) is SignatureState.INVALID


def test_what_was_found_is_kept_with_the_card() -> None:
    found = Signature(state=SignatureState.VERIFIED, key_id="k", key_source="https://x/jwks", whole=True)
    ours = read_card(card(), source="x")
    assert card_from_json(json.loads(json.dumps(card_to_json(replace(ours, signature=found))))).signature == found
    older = {name: value for name, value in card_to_json(ours).items() if name != "signature"}
    assert card_from_json(older).signature == Signature()


def test_the_core_of_a_pure_card_leaves_out_nothing_but_what_is_empty() -> None:
    core = json.loads(core_payload(card()))
    assert core.keys() == card().keys() - {"securityRequirements"}
