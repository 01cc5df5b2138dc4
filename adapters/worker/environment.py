"""The environments that workers run in: one for each framework, built by uv from a hash-locked file.

An environment is a folder `{home}/{framework}-{digest}`; the digest covers the lock, the user's own requirements and
the interpreter, so a change of any of them is another environment, and the old one serves until it is no longer named.
It is built beside its place and renamed when whole; a marker, written last, holds what it was made of.
"""

import fcntl
import hashlib
import json
import os
import shutil
import sys
import sysconfig
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import cast

import anyio
import anyio.abc
import anyio.to_thread
import structlog
from anyio.streams.text import TextReceiveStream
from uv import find_uv_bin

from interhub.adapters.errors import BadEndpoint, RemoteUnavailable

FRAMEWORKS: Mapping[str, str] = {"langgraph": "langgraph_shim", "crewai": "crewai_shim"}
"""The frameworks that there are shims for, and the shims' names."""
MARKER = "interhub-environment.json"
_BUILDER_PREFIXES = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_", "TZ", "TMP", "TEMP", "XDG_", "SYSTEMROOT"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NETRC"),
    *("UV_", "PIP_", "SSH_AUTH_SOCK", "GIT_SSH", "CC", "CXX", "CFLAGS", "CPPFLAGS", "LDFLAGS", "LD_LIBRARY_PATH"),
    *("PKG_CONFIG", "CARGO_HOME", "RUSTUP_", "MACOSX_DEPLOYMENT_TARGET"),
)
"""For proxies, certificates, package indexes and compilers."""
_FORMAT = 1
"""Raised when environments must be built anew although nothing that goes into them changed."""

_log = structlog.get_logger(__name__)

Say = Callable[[str], Awaitable[None]]
"""Takes a line that tells a person what is being done."""


async def say_nothing(line: str) -> None:
    """Take a line and do nothing."""


@dataclass(frozen=True, kw_only=True)
class Environment:
    """A built environment."""

    framework: str
    digest: str
    path: Path
    interpreter: str
    """Version of its Python, such as 3.11.7."""
    requirements: str = ""
    """The user's own requirements file that it was built with, if any."""
    built_at: float = 0.0
    """Seconds since the epoch."""
    current: bool = True
    """False when the framework's lock or the interpreter has changed since; such a one can be removed."""

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.path / "bin" / "python"


class Environments:
    """Builds and finds environments below one folder. Many processes may use the folder at once."""

    def __init__(self, home: Path, *, uv: Path | None = None, locks: Mapping[str, str] | None = None) -> None:
        """`uv` stands in for the one installed beside us, `locks` for the texts of our own requirement files."""
        self._home = home
        self._uv = uv
        self._locks = locks

    async def sync(self, frameworks: Sequence[str] = tuple(FRAMEWORKS), say: Say = say_nothing) -> list[Environment]:
        """Build the frameworks' environments that are not there yet, and return them all.

        Raises:
            BadEndpoint, RemoteUnavailable: as for `ensure`.
        """
        return [await self.ensure(framework, say=say) for framework in frameworks]

    async def ensure(
        self, framework: str, *, requirements: Path | None = None, python: str = "", say: Say = say_nothing
    ) -> Environment:
        """Return the environment, after building it if it is not there. Costs milliseconds when it is.

        `requirements` is a file of the user's own packages, hash-locked or not; `python` a version or a path.

        Raises:
            BadEndpoint: no such framework, file or Python, or the packages cannot be installed together.
            RemoteUnavailable: no network or no disk; a later attempt may succeed.
        """
        lock, own = self._lock_text(framework), _read(requirements)
        digest = _digest(framework, lock, own, python)
        path = self._home / f"{framework}-{digest}"
        found = _read_marker(path)
        if found is not None:
            return found
        await _make_folder(self._home)
        async with _only_one(self._home / f".{path.name}.lock", say):
            found = _read_marker(path)
            if found is None:
                found = await self._build(framework, path, lock, requirements, own, python, say)
        return found

    def list(self) -> list[Environment]:
        """Return what is built, by name."""
        found = [_read_marker(path) for path in sorted(self._home.glob("*-*")) if path.is_dir()]
        current = {name: _digest(name, self._lock_text(name), "", "") for name in FRAMEWORKS}
        return [
            replace(one, current=bool(one.requirements) or one.digest == current.get(one.framework))
            for one in found
            if one is not None
        ]

    def _lock_text(self, framework: str) -> str:
        if framework not in FRAMEWORKS:
            known = ", ".join(FRAMEWORKS)
            raise BadEndpoint(framework or "a worker", "there is no shim for this framework", f"choose one of: {known}")
        if self._locks is not None:
            return self._locks[framework]
        return (files("interhub.adapters.worker") / "requirements" / f"{framework}.txt").read_text()

    async def _build(
        self, framework: str, path: Path, lock: str, requirements: Path | None, own: str, python: str, say: Say
    ) -> Environment:
        began = time.monotonic()
        await say(f"building the environment for {framework} agents")
        work = path.with_name(f".{path.name}.building")
        await anyio.to_thread.run_sync(lambda: shutil.rmtree(work, ignore_errors=True))
        where = f"the environment for {framework} agents"
        try:
            interpreter = python or sys.executable
            await self._run(where, say, "venv", "--quiet", "--relocatable", "--python", interpreter, str(work))
            locked = work / "requirements.txt"
            locked.write_text(lock)
            into = ("pip", "install", "--no-progress", "--compile-bytecode", "--python", str(work / "bin" / "python"))
            if own and "--hash=" in own:
                await self._run(where, say, *into, "--require-hashes", "-r", str(locked), "-r", str(requirements))
            else:
                await self._run(where, say, *into, "--require-hashes", "-r", str(locked))
                if own:  # what the lock says stays; the user's packages must agree with it
                    await self._run(where, say, *into, "-r", str(requirements), "-c", str(locked))
            return await anyio.to_thread.run_sync(
                _finish, work, path, framework, str(requirements or ""), time.monotonic() - began
            )
        except OSError as error:
            raise _os_error(where, error) from error
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(lambda: shutil.rmtree(work, ignore_errors=True))

    async def _run(self, where: str, say: Say, *arguments: str) -> None:
        uv = str(self._uv or find_uv_bin())
        process = await anyio.open_process(
            [uv, "--color", "never", *arguments], stdin=None, env=_builder_env(os.environ), start_new_session=True
        )
        tail: list[str] = []
        code = 0

        async def read(stream: anyio.abc.ByteReceiveStream | None) -> None:
            assert stream is not None, "anyio gives pipes unless told otherwise"
            left = ""
            async for text in TextReceiveStream(stream, errors="replace"):
                *lines, left = (left + text).replace("\r", "\n").split("\n")
                for line in filter(None, map(str.strip, lines)):
                    tail.append(line)
                    del tail[:-40]
                    await say(line)
            if left.strip():
                tail.append(left.strip())

        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(read, process.stdout)
                tasks.start_soon(read, process.stderr)
                code = await process.wait()
        except BaseException:
            with anyio.CancelScope(shield=True):
                if process.returncode is None:
                    process.kill()
                await process.wait()
            raise
        finally:
            await process.aclose()
        if code:
            _log.warning("worker_environment_failed", command=arguments[0], output="\n".join(tail))
            raise _uv_error(where, tail)


def _builder_env(environ: Mapping[str, str]) -> dict[str, str]:
    """What uv, and the build scripts of packages that it runs, get of our environment: no keys of agents or the hub."""
    return {name: value for name, value in environ.items() if name.upper().startswith(_BUILDER_PREFIXES)}


def _digest(framework: str, lock: str, own: str, python: str) -> str:
    interpreter = python or f"{sys.implementation.cache_tag}-{sys.version.split()[0]}-{sys.base_prefix}"
    said = json.dumps([_FORMAT, framework, lock, own, interpreter, sysconfig.get_platform()])
    return hashlib.sha256(said.encode()).hexdigest()[:12]


def _read(requirements: Path | None) -> str:
    if requirements is None:
        return ""
    try:
        return requirements.read_text()
    except OSError as error:
        raise BadEndpoint(str(requirements), f"the requirements cannot be read: {error.strerror}") from error


def _read_marker(path: Path) -> Environment | None:
    try:
        said = cast("dict[str, str | float]", json.loads((path / MARKER).read_text()))
        found = Environment(
            framework=str(said["framework"]),
            digest=path.name.rpartition("-")[2],
            path=path,
            interpreter=str(said["interpreter"]),
            requirements=str(said["requirements"]),
            built_at=float(said["built_at"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    # The base interpreter may have been removed since; then the link in the environment leads nowhere.
    return found if found.python.exists() else None


def _finish(work: Path, path: Path, framework: str, requirements: str, seconds: float) -> Environment:
    config = (work / "pyvenv.cfg").read_text().splitlines()
    settings = {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in config)}
    marker = {
        "framework": framework,
        "interpreter": settings.get("version_info", settings.get("version", "")),
        "requirements": requirements,
        "built_at": time.time(),
        "seconds": round(seconds, 1),
    }
    (work / MARKER).write_text(json.dumps(marker))
    if path.exists():  # without a marker, or with a dead interpreter: nothing can be using it
        shutil.rmtree(path)
    os.rename(work, path)
    found = _read_marker(path)
    assert found is not None, "we have just written it"
    return found


async def _make_folder(home: Path) -> None:
    try:
        await anyio.Path(home).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _os_error(str(home), error) from error


@asynccontextmanager
async def _only_one(lock: Path, say: Say) -> AsyncGenerator[None]:
    """Hold the lock file, waiting while another process (or task) builds the same environment."""
    try:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise _os_error(str(lock.parent), error) from error
    try:
        told = False
        while not _locked(handle):
            if not told:
                await say("another process is building it; waiting")
                told = True
            await anyio.sleep(0.1)
        yield
    finally:
        os.close(handle)


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _os_error(where: str, error: OSError) -> RemoteUnavailable | BadEndpoint:
    if error.errno in (13, 30):  # EACCES, EROFS
        return BadEndpoint(where, f"{error.filename or ''} cannot be written: {error.strerror}", "make it writable")
    return RemoteUnavailable(where, f"{error.strerror or error} ({error.filename or 'disk'})")


_NO_NETWORK = ("dns error", "error sending request", "failed to fetch", "could not connect", "connection refused")
_NO_DISK = ("no space left", "disk quota", "os error 28")
_NO_PYTHON = ("no interpreter found", "no python", "python interpreter not found", "could not find `python`")


def _uv_error(where: str, tail: Sequence[str]) -> RemoteUnavailable | BadEndpoint:
    """Turn uv's last words into one line that says what to do."""
    text = " ".join(tail)
    low = text.lower()
    first = next((line for line in tail if line.lower().startswith(("error", "\u00d7"))), tail[-1] if tail else "")
    first = first.removeprefix("error: ").lstrip("\u00d7 ").strip()
    if any(sign in low for sign in _NO_DISK):
        return RemoteUnavailable(where, "no space is left on the disk; free some and try again")
    if any(sign in low for sign in _NO_PYTHON):
        return BadEndpoint(where, first, "name an installed Python by its path, or a version that is installed")
    if any(sign in low for sign in _NO_NETWORK):
        return RemoteUnavailable(where, f"the package index cannot be reached ({first[:200]}); check the network")
    return BadEndpoint(where, f"uv could not build it: {' '.join(tail[-4:])[:600]}", "see the log for all it said")
