"""`interhub agents` and `interhub find`: who exists, and who can do something."""

from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from interhub.hub.exits import Exit

from .session import Session, session

if TYPE_CHECKING:
    from rich.console import Console

    from interhub.hub.client import HubClient

    from .sources import Wanted

app = typer.Typer(help="Agents: what the hub can delegate to.", no_args_is_help=True)

_MARKS = {"healthy": "green", "failing": "red", "unknown": "dim"}


@app.command()
def add(
    context: typer.Context,
    source: Annotated[
        str | None,
        typer.Argument(
            help="A2A agent or MCP server by URL; path.py:object of a framework; a team or workflow (YAML); or another "
            "program's mcp.json, all of whose servers are added. An MCP server over stdio: `-- command args...`.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="Id to register it under; else made from its own name.")] = "",
    header: Annotated[
        list[str] | None,
        typer.Option(
            help="'NAME: VALUE' sent with every request; ${VARIABLE} is filled in by the hub. May be repeated."
        ),
    ] = None,
    credential: Annotated[
        list[str] | None,
        typer.Option(
            help="SCHEME=${VARIABLE} for a security scheme of an A2A agent's card; Basic and OAuth client credentials: "
            "SCHEME=${ID}:${SECRET}. Sent to no other host. May be repeated."
        ),
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE for its process; ${VARIABLE} is filled in by the hub. May be repeated."),
    ] = None,
    protocol: Annotated[str, typer.Option(help="a2a or mcp, where a URL's is not to be found out.")] = "",
    framework: Annotated[
        str,
        typer.Option(help="Of path.py:object: langgraph, crewai; or local: plain functions, run by the hub itself."),
    ] = "",
    requirements: Annotated[str, typer.Option(help="Of path.py:object: a requirements file to install besides.")] = "",
    allow_private: Annotated[
        bool, typer.Option("--allow-private", help="Of a URL: it may be in a private network, by its name.")
    ] = False,
    allow_bad_signature: Annotated[
        bool, typer.Option("--allow-bad-signature", help="Of a URL: take its card even if a signature does not fit.")
    ] = False,
) -> None:
    """Reach an agent, and register it."""
    from .sources import Given, pairs, read

    here = session(context)
    given = Given(
        source=source or "",
        command=here.command,
        name=name,
        headers=pairs(header or [], ":", "--header"),
        credentials=pairs(credential or [], "=", "--credential"),
        env=pairs(env or [], "=", "--env"),
        protocol=protocol,
        framework=framework,
        requirements=requirements,
        allow_private=allow_private,
        allow_bad_signature=allow_bad_signature,
    )
    found = read(given)
    hub = here.hub()
    if len(found.wanted) == 1 and not found.left_out:
        with here.busy(f"Reaching {found.wanted[0].title}"):
            agent = _add(hub, found.wanted[0])
        here.give({"added": [agent], "failed": [], "left_out": []}, lambda console: _say_added(console, agent))
        return
    _add_all(here, hub, found.wanted, found.left_out)


@app.command("list")
def list_agents(context: typer.Context) -> None:
    """List the registered agents."""
    here = session(context)
    agents: list[dict[str, Any]] = here.hub().get("/api/agents")["agents"]

    def show(console: "Console") -> None:
        from rich.markup import escape
        from rich.table import Table

        if not agents:
            console.print("No agents yet. Add one: interhub agents add --help")
            return
        table = Table(box=None, pad_edge=False)
        for column in ("ID", "KIND", "HEALTH", "CAN", "WHAT IT IS"):
            table.add_column(column, no_wrap=True, overflow="ellipsis")
        for agent in agents:
            what = escape(_line(agent["description"] or agent["name"], 70))
            table.add_row(agent["id"], agent["adapter"], _health(agent), str(agent["capability_count"]), what)
        console.print(table)

    here.give({"agents": agents}, show)


@app.command("show")
def show_agent(context: typer.Context, agent: Annotated[str, typer.Argument(help="The agent's id.")]) -> None:
    """Show an agent: where it is, how it is, and what it can do."""
    here = session(context)
    found: dict[str, Any] = here.hub().get(f"/api/agents/{quote(agent, safe='')}")

    def show(console: "Console") -> None:
        from rich.markup import escape

        endpoint, health = found["endpoint"], found["health"]
        console.print(f"[bold]{found['id']}[/] {escape(found['name'])} {escape(found['version'])}")
        if found["description"]:
            console.print(escape(_line(found["description"], 2000)))
        console.print(f"  kind      {found['adapter']} ({endpoint['binding']})")
        where = endpoint["url"] or " ".join(endpoint["command"]) or endpoint["options"].get("target", "")
        if where:
            console.print(f"  where     {escape(str(where))}")
        given = endpoint["options"].get("credentials", {})
        for name, values in (("headers", endpoint["headers"]), ("login", given), ("env", endpoint["env"])):
            if values:
                console.print(f"  {name:<9} {escape(', '.join(f'{key}: {value}' for key, value in values.items()))}")
        console.print(f"  health    {_health(found)}{_when(' at ', health['checked_at'])}")
        if health["last_error"]:
            console.print(f"  error     {escape(health['last_error'])}")
        if health["next_try_at"]:
            console.print(f"  next try  {_when('', health['next_try_at'])}")
        for connection in found["connections"]:
            console.print(f"  session   {escape(_session(connection))}")
        if found["adapter"] == "a2a":
            console.print(f"  card      {escape(_signed(found['signature']))}")
        console.print(f"  digest    {found['digest']}")
        console.print(f"  added     {_when('', found['created_at'])}")
        for warning in found["warnings"]:
            console.print(f"  [yellow]warning[/]   {escape(warning)}")
        for capability in found["capabilities"]:
            what = _line(capability["description"] or capability["title"], 90)
            console.print(f"  [cyan]{capability['kind']}[/] [bold]{escape(capability['name'])}[/]  {escape(what)}")

    here.give(found, show)


@app.command()
def remove(context: typer.Context, agent: Annotated[str, typer.Argument(help="The agent's id.")]) -> None:
    """Forget an agent."""
    here = session(context)
    removed = here.hub().delete(f"/api/agents/{quote(agent, safe='')}")
    here.give(removed, lambda console: console.print(f"Removed {removed['id']}."))


@app.command()
def refresh(context: typer.Context, agent: Annotated[str, typer.Argument(help="The agent's id.")]) -> None:
    """Ask an agent again what it can do."""
    here = session(context)
    found = here.hub().post(f"/api/agents/{quote(agent, safe='')}/refresh")
    here.give(found, lambda console: _say_added(console, found, verb="Refreshed"))


def find(
    context: typer.Context,
    need: Annotated[str, typer.Argument(help="What is to be done, in words.")],
    limit: Annotated[int, typer.Option(min=1, max=100, help="Most answers.")] = 5,
    agent: Annotated[list[str] | None, typer.Option(help="Look only among these agents. May be repeated.")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say why each was found.")] = False,
) -> None:
    """Find the capabilities that best meet a need."""
    here = session(context)
    found = here.hub().get("/api/find", {"need": need, "limit": limit, "agent": agent or []})

    def show(console: "Console") -> None:
        from rich.markup import escape

        if not found["matches"]:
            console.print("Nobody registered can do that. See: interhub agents list")
        for match in found["matches"]:
            what = _line(match["description"] or match["title"], 90)
            name = escape(f"{match['agent_id']}/{match['capability']}")
            console.print(f"{match['score']:.2f}  [bold]{name}[/]  {escape(what)}")
            for warning in match["warnings"]:
                console.print(f"      [yellow]warning[/] {escape(warning)}")
            if explain:
                console.print(f"      [dim]{escape(match['why'])}[/]")

    here.give(found, show)
    here.end(Exit.DONE if found["matches"] else Exit.FAILED)


def _add(hub: "HubClient", wanted: "Wanted") -> dict[str, Any]:
    from interhub.hub.client import ApiProblem

    from .documents import located

    try:
        agent: dict[str, Any] = hub.post("/api/agents", wanted.body)
    except ApiProblem as problem:
        raise located(problem, wanted.document) from problem
    return agent


def _add_all(here: Session, hub: "HubClient", wanted: "tuple[Wanted, ...]", left_out: tuple[str, ...]) -> None:
    from interhub.hub.client import ApiProblem

    added: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    for one in wanted:
        here.note(f"{one.body['id']}: {one.title} ...")
        try:
            agent = _add(hub, one)
        except ApiProblem as problem:
            failed.append({"id": one.body["id"], "error": dict(problem.body)})
            here.note(f"  not added: {problem}")
        else:
            added.append(agent)
            here.note(f"  added, {agent['capability_count']} capabilities")
    for line in left_out:
        here.note(f"left out: {line}")

    def show(console: "Console") -> None:
        console.print(f"{len(added)} added, {len(failed)} failed, {len(left_out)} left out.")

    here.give({"added": added, "failed": failed, "left_out": list(left_out)}, show)
    here.end(Exit.FAILED if failed or left_out else Exit.DONE)


def _say_added(console: "Console", agent: dict[str, Any], verb: str = "Added") -> None:
    from rich.markup import escape

    names = [capability["name"] for capability in agent["capabilities"]]
    shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
    console.print(f"{verb} [bold]{agent['id']}[/] ({agent['adapter']}): {escape(shown) or 'it can do nothing yet'}")


def _health(agent: dict[str, Any]) -> str:
    state = agent["health"]["state"]
    return f"[{_MARKS.get(state, 'default')}]{state}[/]"


def _session(connection: dict[str, Any]) -> str:
    """Say in a line how a connection is."""
    words = str(connection["state"])
    if connection["calls"]:
        words += f", {connection['calls']} in use"
    if connection["failures"]:
        words += f", failed {connection['failures']} in a row: {_line(connection['last_error'], 160)}"
    if connection["next_try_at"]:
        words += f" (next try {_when('', connection['next_try_at'])})"
    return words


def _signed(signature: dict[str, Any]) -> str:
    match signature["state"]:
        case "verified":
            covers = "" if signature["whole"] else "; what is not covered was left aside"
            return f"signed by {signature['key_id']} ({signature['key_source']}){covers}"
        case "unverifiable":
            return f"signed, not verified: {signature['why']}"
        case "invalid":
            return f"BAD SIGNATURE: {signature['why']}"
        case _:
            return "unsigned"


def _when(lead: str, at: str | None) -> str:
    return f"{lead}{at[:19].replace('T', ' ')} UTC" if at else ""


def _line(text: str, width: int) -> str:
    from interhub.agent_cards import visible  # late: what only some commands need is not imported by all

    one = " ".join(visible(text).split())
    return one if len(one) <= width else one[: width - 1] + "…"
