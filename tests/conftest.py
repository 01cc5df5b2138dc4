"""What every test shares."""

from collections.abc import Generator
from itertools import count
from pathlib import Path

import psycopg
import pytest
from hypothesis import settings
from sqlalchemy import make_url

from tests.support.postgres import postgres_server

# How long one case takes says how busy the machine is, not whether it is right.
settings.register_profile("interhub", deadline=None)
settings.load_profile("interhub")

_numbers = count(1)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The engine and both SDKs run on asyncio only."""
    return "asyncio"


@pytest.fixture(scope="session")
def postgres() -> Generator[str]:
    """The URL of a PostgreSQL server's own database."""
    with postgres_server() as server:
        yield server.url


@pytest.fixture
def postgres_url(postgres: str) -> str:
    """The URL of a fresh, empty PostgreSQL database."""
    name = f"test_{next(_numbers)}"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return make_url(postgres).set(database=name).render_as_string(hide_password=False)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The URL of a SQLite file that is not there yet."""
    return f"sqlite:///{tmp_path / 'interhub.db'}"


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of a fresh database of each kind that we support."""
    url = request.getfixturevalue(f"{request.param}_url")
    assert isinstance(url, str)
    return url
