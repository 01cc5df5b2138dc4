"""The keys that the hub signs its cards and pushes with, and those that it publishes.

They lie in one file of the data directory, the one that signs first. A key that was replaced stays published until it
is retired, so that what it signed can be verified; a running hub sees a change of the file at its next use.
"""

from collections.abc import Sequence
from pathlib import Path

from interhub.agent_cards import Json
from interhub.agent_cards.errors import BadKey
from interhub.agent_cards.keys import SigningKey, read_private_keys, write_private_keys

from .datadir import DataDir
from .errors import DataDirUnusable, SettingsInvalid


class SigningKeys:
    """The hub's signing keys."""

    def __init__(self, home: DataDir, own: Path | None = None) -> None:
        """`own` is a PEM file whose key signs instead of the directory's; those stay published.

        Raises:
            SettingsInvalid: it holds no usable private key.
        """
        self._home = home
        self._own = _read_pem(own) if own is not None else None
        self._seen: tuple[int, int] | None = None
        self._ring: tuple[SigningKey, ...] = ()

    def current(self) -> SigningKey:
        """Return the key that signs; made when there is none yet.

        Raises:
            DataDirUnusable: the file cannot be read or written, or holds something else.
        """
        return self._own or self._keys()[0]

    def all(self) -> tuple[SigningKey, ...]:
        """Return every key that is published, the one that signs first."""
        if self._own is None:
            return self._keys()
        return (self._own, *(key for key in self._stored() if key.id != self._own.id))

    def exist(self) -> bool:
        """Return whether there is a key, without making one."""
        return self._own is not None or bool(self._stored())

    def key_set(self) -> dict[str, Json]:
        """Return the public halves as a JSON Web Key Set (RFC 7517)."""
        return {"keys": [key.public_jwk() for key in self.all()]}

    def rotate(self) -> SigningKey:
        """Make a new key that signs from now on; those before it stay published.

        Raises:
            SettingsInvalid: `cards.signing_key` says which key signs.
        """
        if self._own is not None:
            raise SettingsInvalid(["cards.signing_key is set, so the key that signs is changed there"])
        made = SigningKey.generate()
        self._write((made, *self._stored()))
        return made

    def retire(self, key_id: str) -> SigningKey:
        """Publish a key no more: what it signed is verified by nobody from now on.

        Raises:
            SettingsInvalid: it is the one that signs, or none of ours.
        """
        keys = self._stored()
        found = next((key for key in keys if key.id == key_id), None)
        if found is None:
            known = ", ".join(key.id for key in keys) or "none"
            raise SettingsInvalid([f"no stored key has the id {key_id!r}; stored: {known}"])
        if self._own is None and keys[0] is found:
            raise SettingsInvalid([f"{key_id} is the key that signs; make another one first: --rotate"])
        self._write(tuple(key for key in keys if key is not found))
        return found

    def _keys(self) -> tuple[SigningKey, ...]:
        keys = self._stored()
        if not keys:
            first = write_private_keys([SigningKey.generate()]).decode()
            self._home.write_private(self._home.signing_file, first, only_if_missing=True)
            keys = self._stored()
        return keys

    def _stored(self) -> tuple[SigningKey, ...]:
        file = self._home.signing_file
        try:
            status = file.stat()
            seen = (status.st_mtime_ns, status.st_ino)
            if seen != self._seen:
                if status.st_mode & 0o077:
                    file.chmod(0o600)
                self._ring = read_private_keys(file.read_bytes(), str(file))
                self._seen = seen
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise DataDirUnusable(str(self._home.path), f"{file}: {error.strerror or error}") from error
        except BadKey as error:
            raise DataDirUnusable(str(self._home.path), f"{error}; move it away to begin with a new key") from error
        return self._ring

    def _write(self, keys: Sequence[SigningKey]) -> None:
        self._home.write_private(self._home.signing_file, write_private_keys(keys).decode())
        self._seen = None


def _read_pem(file: Path) -> SigningKey:
    try:
        return SigningKey.from_pem(file.read_bytes(), str(file))
    except OSError as error:
        raise SettingsInvalid([f"cards.signing_key: {file} cannot be read: {error.strerror or error}"]) from error
    except BadKey as error:
        raise SettingsInvalid([f"cards.signing_key: {error}"]) from error
