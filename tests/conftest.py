"""What every test shares."""

import pytest


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The engine and both SDKs run on asyncio only."""
    return "asyncio"
