"""The whole hub, as `interhub serve` builds it, in the test's process and on a port of loopback."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from interhub.hub.app import application
from interhub.hub.datadir import DataDir
from interhub.hub.settings import Auth, Settings

from .face_site import free_socket, serving

CLERK = Path(__file__).resolve().parents[1] / "e2e" / "clerk.py"


@dataclass(frozen=True, kw_only=True)
class WholeHub:
    """A running hub."""

    url: str
    key: str
    client: httpx.AsyncClient
    """Holds the key."""


@asynccontextmanager
async def whole_hub(data_dir: Path, *, auth: Auth | None = None) -> AsyncGenerator[WholeHub]:
    """Run a hub on a data directory, with the agent `clerk` registered."""
    home = DataDir(data_dir)
    home.prepare()
    listener = free_socket()
    host, port = listener.getsockname()
    url = f"http://{host}:{port}"
    key = home.key()
    async with (
        application(Settings(data_dir=data_dir, auth=auth or Auth()), home, url) as app,
        serving(app, listener),
        httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=30) as client,
    ):
        body = {
            "kind": "endpoint",
            "adapter": "local",
            "id": "clerk",
            "endpoint": {"binding": "LOCAL", "options": {"target": f"{CLERK}:clerk"}},
        }
        added = await client.post("/api/agents", json=body)
        assert added.status_code == 201, added.text
        yield WholeHub(url=url, key=key, client=client)
