"""Keys that sign, and keys that verify: JSON Web Keys (RFC 7517), in the three algorithms that we take."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal, TypeAlias, cast

import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt import PyJWK, PyJWTError
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from jwt.utils import base64url_encode

from .canonical import canonical
from .errors import BadKey
from .json_value import Json, JsonObject

ALGORITHMS = ("ES256", "EdDSA", "RS256")
"""The algorithms that we take, whatever a signature says of itself."""

MAX_KEYS = 50
"""Keys of one set that are looked at."""

MIN_RSA_BITS = 2048

Algorithm: TypeAlias = Literal["ES256", "EdDSA", "RS256"]
PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
PublicKey: TypeAlias = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey

_THUMBPRINT = {"EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x"), "RSA": ("e", "kty", "n")}
_PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


@dataclass(frozen=True, kw_only=True)
class VerifyKey:
    """A public key, and where it is from."""

    id: str
    algorithm: Algorithm
    public: PublicKey
    source: str


@dataclass(frozen=True, kw_only=True)
class SigningKey:
    """A private key. Its id is its thumbprint (RFC 7638) where it was given none."""

    id: str
    algorithm: Algorithm
    private: PrivateKey

    @classmethod
    def generate(cls) -> "SigningKey":
        """Make a new key, for ES256."""
        return cls.of(ec.generate_private_key(ec.SECP256R1()), "a new key")

    @classmethod
    def of(cls, private: object, source: str, *, key_id: str = "") -> "SigningKey":
        """Return a private key of `cryptography` as one of ours.

        Raises:
            BadKey: it is for none of our algorithms, or too short.
        """
        if not isinstance(private, (ec.EllipticCurvePrivateKey, ed25519.Ed25519PrivateKey, rsa.RSAPrivateKey)):
            raise BadKey(source, f"a key for none of {', '.join(ALGORITHMS)}")
        public = private.public_key()
        algorithm = algorithm_of(public, source)
        return cls(id=key_id or thumbprint(_public_members(public)), algorithm=algorithm, private=private)

    @classmethod
    def from_pem(cls, pem: bytes, source: str) -> "SigningKey":
        """Read a PEM file with one private key that is not encrypted.

        Raises:
            BadKey: it holds something else.
        """
        try:
            private = serialization.load_pem_private_key(pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise BadKey(source, f"no private key in PEM without a password: {error}") from error
        return cls.of(private, source)

    def public_jwk(self) -> dict[str, Json]:
        """Return the public half as a JSON Web Key."""
        members = _public_members(self.private.public_key())
        return {**members, "kid": self.id, "alg": self.algorithm, "use": "sig"}

    def private_jwk(self) -> dict[str, Json]:
        """Return the whole key as a JSON Web Key: for a file that only its owner reads."""
        return {**_members(self.private), "kid": self.id, "alg": self.algorithm, "use": "sig"}


def read_private_keys(document: bytes, source: str) -> tuple[SigningKey, ...]:
    """Read a key set with private keys, the one that signs first.

    Raises:
        BadKey: it is none, or holds a key that is not one of ours.
    """
    keys: list[SigningKey] = []
    for shaped in _members_of_set(document, source):
        try:
            private = PyJWK(dict(shaped)).key
        except (PyJWTError, ValueError, TypeError, KeyError) as error:
            raise BadKey(source, f"a key that cannot be read: {error}") from error
        kid = shaped.get("kid")
        keys.append(SigningKey.of(private, source, key_id=kid if isinstance(kid, str) else ""))
    if not keys:
        raise BadKey(source, "no key")
    return tuple(keys)


def write_private_keys(keys: Sequence[SigningKey]) -> bytes:
    """Write what `read_private_keys` reads."""
    return orjson.dumps({"keys": [key.private_jwk() for key in keys]}, option=orjson.OPT_INDENT_2)


def read_key_set(document: bytes, source: str) -> tuple[VerifyKey, ...]:
    """Read a published key set (RFC 7517, section 5); keys that we cannot use are passed over.

    Raises:
        BadKey: it is no key set.
    """
    keys: list[VerifyKey] = []
    for shaped in _members_of_set(document, source)[:MAX_KEYS]:
        kid, use, operations = shaped.get("kid"), shaped.get("use"), shaped.get("key_ops")
        if not isinstance(kid, str) or not kid or use not in (None, "sig"):
            continue
        if isinstance(operations, Sequence) and "verify" not in operations:
            continue
        public = {name: value for name, value in shaped.items() if name not in _PRIVATE_MEMBERS}
        try:
            key = PyJWK(public).key
            algorithm = algorithm_of(key, source)
        except (PyJWTError, ValueError, TypeError, KeyError, BadKey):
            continue
        if shaped.get("alg") in (None, algorithm):
            keys.append(VerifyKey(id=kid, algorithm=algorithm, public=cast(PublicKey, key), source=source))
    return tuple(keys)


def algorithm_of(public: object, source: str) -> Algorithm:
    """Return the one algorithm that a public key is for: a signature does not choose it.

    Raises:
        BadKey: it is for none of ours, or too short.
    """
    match public:
        case ec.EllipticCurvePublicKey(curve=ec.SECP256R1()):
            return "ES256"
        case ed25519.Ed25519PublicKey():
            return "EdDSA"
        case rsa.RSAPublicKey(key_size=bits) if bits >= MIN_RSA_BITS:
            return "RS256"
        case rsa.RSAPublicKey(key_size=bits):
            raise BadKey(source, f"an RSA key of {bits} bits; {MIN_RSA_BITS} are the least")
        case _:
            raise BadKey(source, "a key that is neither P-256, Ed25519 nor RSA")


def thumbprint(jwk: JsonObject) -> str:
    """Return the thumbprint of a key (RFC 7638)."""
    members = _THUMBPRINT[str(jwk["kty"])]
    digest = sha256(canonical({name: jwk[name] for name in members})).digest()
    return base64url_encode(digest).decode()


def _members_of_set(document: bytes, source: str) -> list[JsonObject]:
    try:
        read: Json = orjson.loads(document)
    except orjson.JSONDecodeError as error:
        raise BadKey(source, f"something that is not JSON ({error})") from error
    keys = read.get("keys") if isinstance(read, Mapping) else None
    if isinstance(keys, (str, Mapping)) or not isinstance(keys, Sequence):
        raise BadKey(source, "something that is no JSON Web Key Set: it has no list `keys`")
    return [key for key in keys if isinstance(key, Mapping)]


def _public_members(public: PublicKey) -> dict[str, Json]:
    return {name: value for name, value in _members(public).items() if name not in ("key_ops", "use")}


def _members(key: PrivateKey | PublicKey) -> dict[str, Json]:
    written: dict[str, Json]
    match key:
        case ec.EllipticCurvePrivateKey() | ec.EllipticCurvePublicKey():
            written = ECAlgorithm.to_jwk(key, as_dict=True)
        case rsa.RSAPrivateKey() | rsa.RSAPublicKey():
            written = RSAAlgorithm.to_jwk(key, as_dict=True)
        case _:
            written = OKPAlgorithm.to_jwk(key, as_dict=True)
    return {name: value for name, value in written.items() if name != "key_ops"}
