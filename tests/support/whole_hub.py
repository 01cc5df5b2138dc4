"""The whole hub, as `interhub serve` builds it, in the test's process and on a port of loopback."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from starlette.types import ASGIApp, Receive, Scope, Send

from interhub.hub.app import application
from interhub.hub.datadir import DataDir
from interhub.hub.settings import Auth, Section, Settings

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
async def whole_hub(
    data_dir: Path,
    *,
    auth: Auth | None = None,
    local: Mapping[str, str] | None = None,
    open_to_all: bool = False,
    settings: Mapping[str, Section] | None = None,
) -> AsyncGenerator[WholeHub]:
    """Run a hub on a data directory, with local agents registered: by id, their targets; the agent `clerk` by default.

    `open_to_all` lets in who brings no key, as the holder of the hub's: for programs that cannot be given one.
    `settings` are further sections by name.
    """
    home = DataDir(data_dir)
    home.prepare()
    listener = free_socket()
    host, port = listener.getsockname()
    url = f"http://{host}:{port}"
    key = home.key()
    chosen = Settings.model_validate({**(settings or {}), "data_dir": data_dir, "auth": auth or Auth()})
    async with (
        application(chosen, home, url) as served,
        serving(
            _keyed(served.app, key) if open_to_all else served.app,
            listener,
            short_way=None if open_to_all else served.short_way,
        ),
        httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=30) as client,
    ):
        for agent_id, target in (local or {"clerk": f"{CLERK}:clerk"}).items():
            body = {
                "kind": "endpoint",
                "adapter": "local",
                "id": agent_id,
                "endpoint": {"binding": "LOCAL", "options": {"target": target}},
            }
            added = await client.post("/api/agents", json=body)
            assert added.status_code == 201, added.text
        yield WholeHub(url=url, key=key, client=client)


def _keyed(app: ASGIApp, key: str) -> ASGIApp:
    async def front(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and b"authorization" not in dict(scope["headers"]):
            scope = {**scope, "headers": [*scope["headers"], (b"authorization", f"Bearer {key}".encode())]}
        await app(scope, receive, send)

    return front
