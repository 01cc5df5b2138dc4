"""Who is calling: from an API key to a principal. And which addresses the hub may listen on with what it has."""

import hmac
import ipaddress
import os
from collections.abc import Callable, Mapping
from hashlib import sha256
from time import monotonic

from interhub.adapters import Principal

from .datadir import DataDir
from .errors import SettingsInvalid, Unauthenticated
from .settings import Settings

LOCAL = Principal(subject="local")
"""The holder of the hub's own key."""

TRUSTED_S = 0.05
"""Seconds for which the key that was accepted last is accepted without a look at the key file."""


def key_hash(key: str) -> str:
    """Return a key's SHA-256 in hex. Our keys hold 256 random bits, so a slow hash would add nothing."""
    return sha256(key.encode()).hexdigest()


def holder(digest: str) -> Principal:
    """Return the principal of a further key, by its hash: each is a subject of its own, with its own runs."""
    return Principal(subject=f"key-{digest[:12]}")


class ApiKeys:
    """Checks API keys. Only their hashes are kept in memory."""

    def __init__(
        self,
        *,
        accepted: Mapping[str, Principal] | None = None,
        home: DataDir | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """`accepted` are principals by hash (`key_hash`); with `home`, the key kept there is LOCAL's, as it stands."""
        self._clock = clock
        self._accepted = dict(accepted or {})
        self._home = home
        self._version: tuple[int, int, int] | None = None
        self._home_hash = ""
        self._last = ""
        """Hash of the key that came last, where it is LOCAL's."""
        self._looked_at = 0.0

    def principal(self, key: str) -> Principal:
        """Return whose key it is.

        Raises:
            Unauthenticated: it is nobody's.
        """
        given = key_hash(key)
        if given == self._last and self._clock() - self._looked_at < TRUSTED_S:
            return LOCAL
        # Every hash is compared, so that the time taken tells nothing.
        known = [*self._accepted.items(), (self._key_at_home(), LOCAL)]
        found = [principal for digest, principal in known if hmac.compare_digest(given, digest)]
        if not key or not found:
            raise Unauthenticated
        self._last = given if found[-1] is LOCAL else ""
        return found[-1]

    def accepts(self, principal: Principal) -> bool:
        """Return whether there is a key whose holder this is."""
        if principal.key == LOCAL.key:
            return True
        return any(principal.key == one.key for one in self._accepted.values())

    def principal_of_header(self, authorization: str, api_key: str = "") -> Principal:
        """Return the caller of a request by its `Authorization: Bearer KEY`, or else its `X-API-Key`.

        Raises:
            Unauthenticated: neither holds an accepted key.
        """
        scheme, _, credentials = authorization.partition(" ")
        if scheme.lower() == "bearer":
            return self.principal(credentials.strip())
        return self.principal(api_key)

    def _key_at_home(self) -> str:
        self._looked_at = self._clock()
        if self._home is None:
            return ""
        try:
            stat = os.stat(self._home.key_file)  # a rotated key holds from the next request on
            version = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
            if version != self._version:
                self._home_hash = key_hash(self._home.key())
                self._version = version
        except OSError:
            self._version, self._home_hash = None, ""
        return self._home_hash


def api_keys(settings: Settings, home: DataDir) -> ApiKeys:
    """Return the keys that the settings accept: with `auth.key` set, not the one in the data directory."""
    accepted = {digest: holder(digest) for digest in settings.auth.key_hashes}
    if settings.auth.key is not None:
        accepted[key_hash(settings.auth.key.get_secret_value())] = LOCAL
    return ApiKeys(accepted=accepted, home=None if settings.auth.key is not None else home)


def own_key(settings: Settings, home: DataDir) -> str:
    """Return the key that our own command line uses.

    Raises:
        DataDirUnusable: it cannot be read or made.
    """
    return settings.auth.key.get_secret_value() if settings.auth.key is not None else home.key()


def is_loopback(host: str) -> bool:
    """True when only this machine reaches the address."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_bind(settings: Settings) -> None:
    """Refuse to listen where others reach us until somebody has chosen who may, and under which name.

    Raises:
        SettingsInvalid: what is missing, and how to set it.
    """
    host = settings.server.host
    if is_loopback(host):
        return
    problems: list[str] = []
    if not settings.auth.is_set:
        problems.append(
            f"server.host {host} is reachable from other machines: set auth.key (INTERHUB_AUTH__KEY) or "
            "auth.key_hashes, so that it is you who chose the key they use"
        )
    if not settings.server.allowed_hosts:
        problems.append(
            f"server.host {host} is reachable from other machines: set server.allowed_hosts "
            "(INTERHUB_SERVER__ALLOWED_HOSTS='[\"hub.example.com\"]') to the names they reach it by"
        )
    if problems:
        raise SettingsInvalid(problems)
