"""What the bundle for MCP clients starts: the bridge to a hub whose address and key the user gave the client."""

import os
import sys
from collections.abc import Mapping
from functools import partial
from urllib.parse import quote, urlsplit

import anyio

from interhub.hub.bridge import Address, stdio_bridge

_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


class Misconfigured(Exception):
    """What the user entered cannot be used."""


def address(given: Mapping[str, str]) -> Address:
    """Return the hub's address and key, out of the environment that the manifest makes.

    Raises:
        Misconfigured: the message says which field of the extension's settings, and why.
    """
    url = given.get("INTERHUB_BUNDLE_URL", "").strip().rstrip("/").removesuffix("/mcp")
    key = given.get("INTERHUB_BUNDLE_KEY", "").strip()
    agent = given.get("INTERHUB_BUNDLE_AGENT", "").strip()
    profile = given.get("INTERHUB_BUNDLE_PROFILE", "").strip()
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.query
        usable = usable and (parts.port is None or parts.port > 0)
    except ValueError:
        usable, parts = False, urlsplit("")
    if not usable:
        raise Misconfigured(f"Address of the hub: {url!r} is no address such as http://127.0.0.1:7337")
    if not key or not key.isascii() or not key.isprintable():
        raise Misconfigured("Key: enter what `interhub key show` prints")
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise Misconfigured(f"Address of the hub: the key would travel to {parts.hostname} unprotected; use https")
    if agent and profile:
        raise Misconfigured("Only this agent, Profile: one agent is no part of the catalogue; leave one of them empty")
    path = f"/agents/{quote(agent, safe='')}/mcp" if agent else "/mcp"
    return Address(url=url + path + (f"?profile={quote(profile, safe='')}" if profile else ""), key=key)


def main() -> int:
    """Carry messages until the client closes stdin; returns the exit code."""
    try:
        hub = address(os.environ)
    except Misconfigured as error:
        print(f"interhub: {error}", file=sys.stderr)
        return 2
    anyio.run(partial(stdio_bridge, lambda: hub, look=lambda: hub))
    return 0


if __name__ == "__main__":
    sys.exit(main())
