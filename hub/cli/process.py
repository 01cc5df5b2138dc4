"""`interhub serve`, `stop`, `mcp`, `doctor` and `version`: the hub's own process."""

from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer

from interhub.hub.exits import Exit

from .session import session

if TYPE_CHECKING:
    from interhub.hub.datadir import RunningHub


def serve(
    context: typer.Context,
    host: Annotated[str | None, typer.Option(help="Address to listen on (server.host).", show_default=False)] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on (server.port); 0 takes a free one.", show_default=False)
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(help="debug, info, warning or error (logging.level).", show_default=False)
    ] = None,
) -> None:
    """Run the hub until Ctrl-C (or SIGTERM)."""
    from interhub.hub.server import Application
    from interhub.hub.server import serve as run
    from interhub.hub.telemetry import start_logging, start_tracing
    from interhub.hub.version import VERSION

    here = session(context)
    settings = here.settings({"server.host": host, "server.port": port, "logging.level": log_level})
    start_logging(settings.logging)
    flush = start_tracing(VERSION)

    def application() -> Application:
        from interhub.hub.app import application

        return application

    def ready(hub: "RunningHub") -> None:
        if here.json:
            here.give({"url": hub.url, "pid": hub.pid, "data_dir": str(settings.data_dir)}, lambda console: None)
            return
        here.note(f"interhub {hub.version} serves at {hub.url} (Ctrl-C stops it)")
        here.note(f"  MCP {hub.url}/mcp   A2A {hub.url}/a2a   REST {hub.url}/api   data {settings.data_dir}")

    try:
        run(settings, application, on_ready=ready)
    finally:
        flush()


def stop(context: typer.Context) -> None:
    """Stop the running hub. Runs under way go on when it is started again."""
    from interhub.hub.daemon import stop_hub

    here = session(context)
    hub = stop_hub(here.home())
    here.give({"stopped": hub.pid, "url": hub.url}, lambda console: console.print(f"The hub at {hub.url} has stopped."))


def mcp(
    context: typer.Context,
    agent: Annotated[
        str | None, typer.Option(help="Offer only this agent, under its own names.", show_default=False)
    ] = None,
    profile: Annotated[
        str | None, typer.Option(help="Offer this profile of the catalogue.", show_default=False)
    ] = None,
) -> None:
    """Speak MCP on stdin and stdout for a client that starts its servers itself; starts the hub when none runs."""
    from functools import partial

    import anyio

    from interhub.hub.auth import own_key
    from interhub.hub.bridge import Address, stdio_bridge
    from interhub.hub.daemon import ensure_hub
    from interhub.hub.datadir import DataDir
    from interhub.hub.errors import BadRequest

    here = session(context)
    settings = here.settings()
    if agent and profile:
        raise BadRequest("one agent is no part of the catalogue", "give --agent or --profile")
    home = DataDir(settings.data_dir)
    path = f"/agents/{quote(agent, safe='')}/mcp" if agent else "/mcp"
    if profile:
        path += f"?profile={quote(profile, safe='')}"

    def at(hub: "RunningHub") -> Address:
        return Address(url=hub.url + path, key=own_key(settings, home))

    def locate() -> Address:
        return at(ensure_hub(settings, config=here.config))

    def look() -> Address | None:
        hub = home.running() if home.hub_file.exists() else None
        return at(hub) if hub is not None else None

    anyio.run(partial(stdio_bridge, locate, look=look))


def doctor(context: typer.Context) -> None:
    """Look for what keeps the hub from working, and say what to do about it."""
    from interhub.hub.doctor import examine

    here = session(context)
    findings = examine(here.data_dir, here.config)
    failed = any(finding.level == "error" for finding in findings)

    def show_all(console: object) -> None:
        marks = {"ok": "[green]ok     [/]", "warning": "[yellow]warning[/]", "error": "[red]error  [/]"}
        out = here.console()
        from rich.markup import escape

        for finding in findings:
            out.print(f"{marks[finding.level]} {escape(finding.what)}")
            if finding.remedy:
                out.print(f"        [dim]{escape(finding.remedy)}[/]")

    here.give([finding.__dict__ for finding in findings], show_all)
    here.end(Exit.UNUSABLE if failed else Exit.DONE)


def version(context: typer.Context) -> None:
    """Say which interhub this is."""
    from interhub.hub.version import VERSION

    session(context).give({"version": VERSION}, lambda console: typer.echo(f"interhub {VERSION}"))
