"""The hub's process: it listens, says when it is ready, and ends well."""

import asyncio
import errno
import os
import signal
import socket
import threading
from collections.abc import Callable, Generator
from contextlib import AbstractAsyncContextManager, closing, contextmanager
from functools import partial
from typing import cast

import structlog
import uvicorn

from .auth import check_bind
from .datadir import DataDir, RunningHub
from .drain import Drain
from .errors import AddressInUse, SettingsInvalid
from .settings import Settings
from .version import VERSION
from .wire import Served, ShortProtocol

log = structlog.get_logger()

_STREAM_GRACE_S = 2.0
"""Seconds that open event streams get when the hub stops: time for a call that is about to be answered."""

Application = Callable[[Settings, DataDir, str], AbstractAsyncContextManager[Served]]
"""Opens the hub for settings, data directory and its own URL: `interhub.hub.app.application`."""


def serve(
    settings: Settings, application: Callable[[], Application], *, on_ready: Callable[[RunningHub], None]
) -> None:
    """Run the hub until it is told to stop (SIGINT, SIGTERM). `on_ready` is called once it answers.

    `application` is fetched late: its imports take seconds, and whether the directory and the port are free is known
    before.

    Raises:
        SettingsInvalid: it may not listen there, or cannot.
        DataDirUnusable: the data directory cannot be read or written.
        AlreadyRunning: another hub holds the data directory.
        AddressInUse: the port is taken.
        DatabaseError: the database cannot be used, or a newer interhub has migrated it.
    """
    check_bind(settings)
    home = DataDir(settings.data_dir)
    home.prepare()
    with home.hold(), closing(listen(settings.server.host, settings.server.port)) as listener:
        home.key()
        hub = RunningHub(pid=os.getpid(), url=_url(settings.server.host, listener), version=VERSION)

        def ready() -> None:
            home.announce(hub)
            log.info("hub_ready", url=hub.url, data_dir=str(home.path), pid=hub.pid, version=VERSION)
            on_ready(hub)

        try:
            with asyncio.Runner(
                loop_factory=uvicorn.Config("", loop="auto", log_config=None).get_loop_factory()
            ) as runner:
                runner.run(_serve(settings, application()(settings, home, hub.url), listener, ready))
        except BaseExceptionGroup as group:
            raise _only(group) from group
        finally:
            home.withdraw()
        log.info("hub_stopped", pid=hub.pid)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket bound to the address; connections wait in it until the hub is ready.

    Raises:
        AddressInUse: another program listens there.
        SettingsInvalid: the machine has no such address, or may not listen there.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host.strip("[]") or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise SettingsInvalid([f"server.host {host!r} is no address to listen on: {error.strerror}"]) from error
    listener = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a hub that was killed starts again at once
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise AddressInUse(host, port) from error
        why = (error.strerror or str(error)).lower()
        raise SettingsInvalid(
            [f"the hub cannot listen on {host} port {port} (server.host, server.port): {why}"]
        ) from error
    return listener


async def _serve(
    settings: Settings, opened: AbstractAsyncContextManager[Served], listener: socket.socket, ready: Callable[[], None]
) -> None:
    async with opened as served:
        drain = Drain(served.app)
        config = uvicorn.Config(
            drain,
            lifespan="off",  # the context is the lifespan: what it raises reaches the caller as it is
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws="none",
            http=cast("type[asyncio.Protocol]", partial(ShortProtocol, short_way=served.short_way)),
            # Longer than clients keep an idle connection (undici 4 s, httpx 5 s, aiohttp 15 s, most proxies 60 s): we
            # must not be the one who hangs up just as the next request comes.
            timeout_keep_alive=75,
            timeout_graceful_shutdown=max(1, round(settings.server.stop_timeout_s)),
        )
        await _Server(config, drain, ready).serve(sockets=[listener])


class _Server(uvicorn.Server):
    """uvicorn's server, which says when it is ready, ends event streams, and does not raise its signal again."""

    def __init__(self, config: uvicorn.Config, drain: Drain, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._drain = drain
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        log.info("hub_stopping", requests=len(self.server_state.tasks))
        asyncio.get_running_loop().call_later(_STREAM_GRACE_S, self._drain.end_streams)
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        # uvicorn raises a captured signal again once it has stopped; the default handler would then end the process
        # before the data directory is put in order, and with an exit code that says it was killed.
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _only(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the one error in a group: what went wrong while task groups were open comes wrapped in them."""
    if len(group.exceptions) != 1:
        return group
    inner = group.exceptions[0]
    return _only(cast("BaseExceptionGroup[BaseException]", inner)) if isinstance(inner, BaseExceptionGroup) else inner


def _url(host: str, listener: socket.socket) -> str:
    port = listener.getsockname()[1]
    name = host.strip("[]")
    if name in ("", "0.0.0.0", "::"):  # noqa: S104  # every address: from this machine, loopback is one of them
        name = "127.0.0.1" if listener.family == socket.AF_INET else "::1"
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"
