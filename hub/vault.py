"""Seals what must be kept and must not be read in the database: credentials that callers gave us."""

import os

from .errors import HubError

KEY_BYTES = 32
_NONCE_BYTES = 12
_FORM = b"\x01"


class VaultLocked(HubError):
    """What was sealed does not open: it was sealed with another key, or changed."""

    def __str__(self) -> str:
        return "what is stored does not open with this key; put the earlier key back (`secrets.key`, or `vault.key`)"


class Vault:
    """AES-256-GCM under one key; each value is bound to the place that it is kept at."""

    def __init__(self, key: bytes) -> None:
        """`key` has 32 bytes."""
        # Imported late: it takes a tenth of a second, and few hubs hold credentials when they start.
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._cipher = AESGCM(key)

    def seal(self, value: bytes, place: bytes) -> bytes:
        """Return a value sealed for a place."""
        nonce = os.urandom(_NONCE_BYTES)
        return _FORM + nonce + self._cipher.encrypt(nonce, value, place)

    def open(self, sealed: bytes, place: bytes) -> bytes:
        """Return what was sealed for a place.

        Raises:
            VaultLocked: it was sealed with another key or for another place, or was changed.
        """
        from cryptography.exceptions import InvalidTag

        form, nonce, inner = sealed[:1], sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        try:
            if form != _FORM:
                raise VaultLocked
            return self._cipher.decrypt(nonce, inner, place)
        except (InvalidTag, ValueError) as error:
            raise VaultLocked from error
