"""The data directory: what lies where in it, who holds it, and the API key kept in it.

One hub at a time holds a directory, by a lock that the system takes back when the process dies however it dies.
"""

import json
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import structlog

from .errors import AlreadyRunning, DataDirUnusable

log = structlog.get_logger()

KEY_PREFIX = "ih_"
_LOCK_ATTEMPTS = 10
_LOCK_PAUSE_S = 0.03


@dataclass(frozen=True, kw_only=True)
class RunningHub:
    """What the hub that holds a data directory says of itself there."""

    pid: int
    url: str
    """Where it is reached from this machine, without a trailing slash."""
    version: str


class DataDir:
    """One data directory. Naming it touches nothing; `prepare` makes it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.key_file = path / "api.key"
        self.state_key_file = path / "state.key"
        self.vault_key_file = path / "vault.key"
        self.signing_file = path / "signing.jwks"
        """The private keys that cards and pushes are signed with."""
        self.replica_file = path / "replica.id"
        self.hub_file = path / "hub.json"
        self.lock_file = path / "hub.lock"
        self.database_file = path / "interhub.db"
        self.engine_file = path / "engine.db"
        self.workers = path / "workers"
        self.logs = path / "logs"
        self.log_file = self.logs / "hub.log"
        """Where a hub that was started in the background writes its log."""

    def prepare(self) -> None:
        """Make the directory and what it holds, for this user only.

        Raises:
            DataDirUnusable: it cannot be made or written.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            for inner in (self.workers, self.logs):
                inner.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise DataDirUnusable(str(self.path), _why(error)) from error
        self.check_writable()

    def check_writable(self) -> None:
        """Write something, and take it away again: permission bits do not tell (root, read-only mounts, full disks).

        Raises:
            DataDirUnusable: it cannot be written.
        """
        try:
            with tempfile.TemporaryFile(dir=self.path) as probe:
                probe.write(b"\0" * 4096)
                probe.flush()
        except OSError as error:
            raise DataDirUnusable(str(self.path), _why(error)) from error

    @contextmanager
    def hold(self) -> Generator[None]:
        """Hold the directory for this process until the block is left; it must be prepared.

        Raises:
            AlreadyRunning: another hub holds it.
            DataDirUnusable: the lock cannot be made.
        """
        try:
            make_private(self.lock_file)  # who may read it may also lock it
            file = self.lock_file.open("a+b")
        except OSError as error:
            raise DataDirUnusable(str(self.path), _why(error)) from error
        with file:
            # `is_held` takes the lock for a moment to look; a second try tells a look from a hub.
            for attempt in range(_LOCK_ATTEMPTS):
                if _lock(file):
                    break
                if attempt + 1 == _LOCK_ATTEMPTS:
                    hub = self._announced()
                    raise AlreadyRunning(str(self.path), hub.url if hub else "", hub.pid if hub else 0)
                time.sleep(_LOCK_PAUSE_S)
            with suppress(OSError):
                self.hub_file.unlink()  # left by a hub that was killed
            yield

    def is_held(self) -> bool:
        """True when a hub holds the directory, ready or not."""
        try:
            with self.lock_file.open("r+b") as file:
                return not _lock(file)
        except OSError:
            return False

    def announce(self, hub: RunningHub) -> None:
        """Say where the running hub is reached. The one who holds the directory calls it.

        Raises:
            DataDirUnusable: it cannot be written.
        """
        try:
            self._write(self.hub_file, json.dumps(asdict(hub), indent=2) + "\n")
        except OSError as error:
            raise DataDirUnusable(str(self.path), _why(error)) from error

    def withdraw(self) -> None:
        """Take the announcement back."""
        with suppress(OSError):
            self.hub_file.unlink()

    def running(self) -> RunningHub | None:
        """Return the hub that holds the directory, once it has announced itself."""
        return self._announced() if self.is_held() else None

    def key(self) -> str:
        """Return the API key, made when there is none yet.

        Raises:
            DataDirUnusable: it cannot be read or written.
        """
        try:
            with suppress(FileNotFoundError):
                return self._read_key()
            self.rotate_key(only_if_missing=True)
            return self._read_key()
        except OSError as error:
            raise DataDirUnusable(str(self.path), f"the API key in {self.key_file}: {_why(error)}") from error

    def rotate_key(self, *, only_if_missing: bool = False) -> None:
        """Replace the API key; the running hub takes the new one, and only that, from its next request on.

        Raises:
            OSError: it cannot be written.
        """
        self._write(self.key_file, KEY_PREFIX + secrets.token_urlsafe(32) + "\n", only_if_missing=only_if_missing)

    def state_key(self) -> bytes:
        """Return the 32 bytes that seal what clients keep for us between two requests; made when there are none yet.

        Raises:
            DataDirUnusable: they cannot be read or written.
        """
        try:
            with suppress(ValueError):
                return self._secret(self.state_key_file)
            self._write(self.state_key_file, secrets.token_hex(32))  # what it sealed is forgotten within minutes
            return self._secret(self.state_key_file)
        except OSError as error:
            raise DataDirUnusable(str(self.path), f"{self.state_key_file}: {_why(error)}") from error

    def vault_key(self) -> bytes:
        """Return the 32 bytes that seal the credentials in the database; made when there are none yet.

        Raises:
            DataDirUnusable: they cannot be read or written, or the file holds something else: it is not made anew,
                because nothing that was sealed would open any more.
        """
        try:
            return self._secret(self.vault_key_file)
        except ValueError as error:
            why = f"{self.vault_key_file} holds no key of 32 bytes; put the earlier one back"
            raise DataDirUnusable(str(self.path), why) from error
        except OSError as error:
            raise DataDirUnusable(str(self.path), f"{self.vault_key_file}: {_why(error)}") from error

    def write_private(self, file: Path, text: str, *, only_if_missing: bool = False) -> None:
        """Write a file of this directory that only this user reads, whole or not at all.

        Raises:
            DataDirUnusable: it cannot be written.
        """
        try:
            self._write(file, text, only_if_missing=only_if_missing)
        except OSError as error:
            raise DataDirUnusable(str(self.path), f"{file}: {_why(error)}") from error

    def replica_name(self) -> str:
        """Return the name that this directory has among those of other replicas; made when there is none yet.

        The one who holds the directory calls it: whoever had the name before is gone.

        Raises:
            DataDirUnusable: it cannot be read or written.
        """
        try:
            with suppress(FileNotFoundError):
                if name := self.replica_file.read_text(encoding="ascii", errors="replace").strip():
                    return name
            name = secrets.token_hex(16)
            self._write(self.replica_file, name)
            return name
        except OSError as error:
            raise DataDirUnusable(str(self.path), f"{self.replica_file}: {_why(error)}") from error

    def key_is_private(self) -> bool:
        """True when nobody else may read the key, or the system has no such permissions."""
        return sys.platform == "win32" or not self.key_file.stat().st_mode & 0o077

    def _read_key(self) -> str:
        key = self.key_file.read_text(encoding="ascii", errors="replace").strip()
        if not key.startswith(KEY_PREFIX) or len(key) < 20:
            raise DataDirUnusable(
                str(self.path), f"{self.key_file} holds no API key; remove it, and a new one is made at the next start"
            )
        if not self.key_is_private():
            log.warning("api_key_was_readable_by_others", file=str(self.key_file), now="0600")
            self.key_file.chmod(0o600)
        return key

    def _secret(self, file: Path) -> bytes:
        with suppress(FileNotFoundError):
            return _hex32(file.read_text(encoding="ascii", errors="replace"))
        self._write(file, secrets.token_hex(32), only_if_missing=True)
        return _hex32(file.read_text(encoding="ascii"))

    def _announced(self) -> RunningHub | None:
        try:
            said = json.loads(self.hub_file.read_bytes())
            return RunningHub(pid=int(said["pid"]), url=str(said["url"]), version=str(said["version"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _write(self, file: Path, text: str, *, only_if_missing: bool = False) -> None:
        """Write a file that only this user reads, whole or not at all."""
        number, name = tempfile.mkstemp(dir=self.path, prefix=f".{file.name}.")  # made 0600
        try:
            with os.fdopen(number, "w", encoding="utf-8") as new:
                new.write(text)
                new.flush()
                os.fsync(new.fileno())
            if not only_if_missing:
                os.replace(name, file)
                return
            try:
                os.link(name, file)  # two who start at once agree on the first one's key
            except FileExistsError:
                pass
            except OSError:  # a file system without hard links
                if not file.exists():
                    os.replace(name, file)
                    return
            os.unlink(name)
        except OSError:
            with suppress(OSError):
                os.unlink(name)
            raise


def make_private(file: Path) -> None:
    """Make a file that only this user reads, where there is none yet.

    Raises:
        OSError: it cannot be made.
    """
    os.close(os.open(file, os.O_WRONLY | os.O_CREAT, 0o600))


def _hex32(text: str) -> bytes:
    value = bytes.fromhex(text)
    if len(value) != 32:
        raise ValueError("not 32 bytes")
    return value


def _why(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename else ""
    return f"{(error.strerror or str(error)).lower()}{where}"


if sys.platform == "win32":
    import msvcrt

    def _lock(file: IO[bytes]) -> bool:
        file.seek(0)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _lock(file: IO[bytes]) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
