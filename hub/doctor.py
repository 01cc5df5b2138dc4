"""Looks for what keeps the hub from working; each finding says what to do about it. Changes nothing."""

import os
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .auth import own_key
from .client import ApiProblem, HubClient
from .connect import ClientConfigUnusable, clients, connected
from .daemon import is_ready
from .datadir import DataDir, RunningHub
from .errors import DataDirUnusable, HubNotRunning, SettingsInvalid
from .settings import Settings, load
from .version import VERSION

_ENOUGH_BYTES = 2 * 1024**3
"""A framework's environment takes up to a gigabyte, and twice that while it is built."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    check: str
    """Name of the check, the same on every run."""
    level: Literal["ok", "warning", "error"]
    what: str
    remedy: str = ""


def examine(data_dir: Path | None = None, config: Path | None = None) -> list[Finding]:
    """Look at everything, and return what was found, in a fixed order."""
    return list(_examine(data_dir, config))


def _examine(data_dir: Path | None, config: Path | None) -> Iterator[Finding]:
    yield _ok("version", f"interhub {VERSION}, Python {sys.version.split()[0]}")
    try:
        settings = load(arguments={"data_dir": data_dir}, config=config)
    except SettingsInvalid as error:
        yield _error("settings", str(error), "mend the setting; docs/settings.md lists them all")
        return
    yield _ok("settings", "settings can be read")
    home = DataDir(settings.data_dir)
    yield from _data_dir(home)
    hub = home.running()
    yield from _hub(settings, home, hub)
    yield from _workers(settings)
    if hub is not None:
        yield from _agents(settings, home, hub)
    yield from _clients()


def _data_dir(home: DataDir) -> Iterator[Finding]:
    if not home.path.exists():
        yield _ok("data_dir", f"the data directory {home.path} is made at the first start")
        return
    try:
        home.check_writable()
    except DataDirUnusable as error:
        yield _error("data_dir", str(error), "make it writable, or choose another with --data-dir or INTERHUB_DATA_DIR")
        return
    yield _ok("data_dir", f"the data directory {home.path} can be written")
    free = shutil.disk_usage(home.path).free
    said = f"{free / 1024**3:.1f} GiB are free there"
    remedy = "environments of agent frameworks take up to 1 GiB each: make room, or choose another directory"
    yield _ok("disk", said) if free >= _ENOUGH_BYTES else _warning("disk", said, remedy)
    if not home.key_file.exists():
        yield _ok("key", "the API key is made at the first start")
    elif home.key_is_private():
        yield _ok("key", "the API key can be read by you alone")
    else:
        remedy = f"chmod 600 {home.key_file}, then `interhub key rotate` if others use this machine"
        yield _warning("key", f"others can read the API key in {home.key_file}", remedy)


def _hub(settings: Settings, home: DataDir, hub: RunningHub | None) -> Iterator[Finding]:
    if hub is None and home.is_held():
        yield _warning("hub", "a hub is just starting, or hangs", f"look into {home.log_file}, then try again")
    elif hub is None:
        yield _warning(
            "hub", "no hub is running", "interhub serve; clients that use `interhub mcp` start it themselves"
        )
        yield _port(settings)
    elif not is_ready(hub):
        remedy = f"look into {home.log_file}; `interhub stop` and `interhub serve` start it anew"
        yield _error("hub", f"the hub (process {hub.pid}) does not answer at {hub.url}", remedy)
    else:
        yield _ok("hub", f"the hub {hub.version} answers at {hub.url} (process {hub.pid})")
        if hub.version != VERSION:
            yield _warning("hub_version", f"the hub is {hub.version}, this command {VERSION}", "start the hub anew")


def _port(settings: Settings) -> Finding:
    host, port = settings.server.host, settings.server.port
    if port:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.settimeout(0.5)
            if probe.connect_ex((host.strip("[]") or "127.0.0.1", port)) == 0:
                return _error(
                    "port", f"port {port} is in use by another program", "choose another: server.port or --port"
                )
    return _ok("port", f"port {port} is free" if port else "a free port is taken")


def _workers(settings: Settings) -> Iterator[Finding]:
    from uv import find_uv_bin

    from interhub.adapters.worker import FRAMEWORKS, Environments

    try:
        yield _ok("uv", f"uv builds environments: {find_uv_bin()}")
    except FileNotFoundError:
        yield _error("uv", "uv is not installed, so no environment can be built", "pip install uv")
    environments = Environments(settings.worker_environments).list()
    built = {each.framework: each for each in environments if not each.requirements}
    for name in FRAMEWORKS:
        found = built.get(name)
        if found is None:
            yield _ok(
                f"workers.{name}", f"{name}: not built yet; its first agent builds it, or `interhub workers sync`"
            )
        elif not os.access(found.python, os.X_OK):
            remedy = f"remove {found.path}, then interhub workers sync {name}"
            yield _error(f"workers.{name}", f"{name}: the environment in {found.path} is broken", remedy)
        elif not found.current:
            remedy = f"interhub workers sync {name}"
            yield _warning(f"workers.{name}", f"{name}: the environment is out of date", remedy)
        else:
            yield _ok(f"workers.{name}", f"{name}: ready in {found.path}")


def _agents(settings: Settings, home: DataDir, hub: RunningHub) -> Iterator[Finding]:
    try:
        client = HubClient(hub.url, own_key(settings, home), data_dir=str(home.path))
        agents = client.get("/api/agents")["agents"]
    except (ApiProblem, HubNotRunning, DataDirUnusable) as error:
        yield _error("agents", f"the hub does not say which agents it has: {error}", "see the finding about the hub")
        return
    for agent in agents:
        name, health = f"agents.{agent['id']}", agent["health"]
        if health["state"] == "failing":
            remedy = f"mend it, then: interhub agents refresh {agent['id']}"
            yield _warning(name, f"agent {agent['id']} fails: {health['last_error']}", remedy)
        else:
            yield _ok(name, f"agent {agent['id']} is {health['state']}")
    if not agents:
        yield _warning("agents", "no agents are registered", "interhub agents add --help shows the forms")


def _clients() -> Iterator[Finding]:
    for client in clients().values():
        name = f"clients.{client.name}"
        try:
            found = connected(client)
        except ClientConfigUnusable as error:
            yield _warning(name, f"{client.title}: {error}", "mend the file")
            continue
        if found:
            yield _ok(name, f"{client.title} is connected")
        elif client.file.exists():
            yield _ok(name, f"{client.title} is not connected: interhub connect {client.name}")


def _ok(check: str, what: str) -> Finding:
    return Finding(check=check, level="ok", what=what)


def _warning(check: str, what: str, remedy: str) -> Finding:
    return Finding(check=check, level="warning", what=what, remedy=remedy)


def _error(check: str, what: str, remedy: str) -> Finding:
    return Finding(check=check, level="error", what=what, remedy=remedy)
