"""`interhub triggers`: what starts or wakes runs from outside."""

import json as jsons
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from .session import session

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(help="Schedules, webhooks and events that start or wake runs.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The trigger's name.")]
Data = Annotated[str, typer.Option(help="The event's data, as a JSON object.")]


@app.command("list")
def list_triggers(context: typer.Context) -> None:
    """List your triggers, and what each did last; with the hub's own key, everybody's."""
    here = session(context)
    found: dict[str, Any] = here.hub().get("/api/triggers")

    def show(console: "Console") -> None:
        from rich.markup import escape
        from rich.table import Table

        if not found["triggers"]:
            console.print("No triggers yet. Add one: interhub triggers add FILE")
            return
        table = Table(box=None, pad_edge=False)
        several = len({each["subject"] for each in found["triggers"]}) > 1
        for column in ("TRIGGER", *(["OF"] if several else []), "ON", "LAST (UTC)", "STATE", "RUN"):
            table.add_column(column, no_wrap=True, overflow="ellipsis")
        for each in found["triggers"]:
            last: dict[str, Any] = each["last"] or {"at": "", "state": "never", "runs": [], "error": ""}
            state = f"{last['state']}: {last['error']}" if last["error"] else last["state"]
            table.add_row(
                each["name"],
                *([each["subject"]] if several else []),
                escape(_on(each)),
                last["at"][:19].replace("T", " "),
                escape(state),
                ", ".join(last["runs"]),
            )
        console.print(table)

    here.give(found, show)


@app.command()
def add(
    context: typer.Context, file: Annotated[Path, typer.Argument(help="A trigger, as YAML, JSON or TOML.")]
) -> None:
    """Register a trigger. It acts on your behalf. The secret that is made for a webhook is said this once."""
    from interhub.hub.client import ApiProblem

    from .documents import located, read_file

    here = session(context)
    document = read_file(file)
    try:
        added = here.hub().post("/api/triggers", {"document": document.value, "source_name": str(file)})
    except ApiProblem as problem:
        raise located(problem, document) from problem

    def show(console: "Console") -> None:
        typer.echo(f"Added {added['name']}: {_on(added)}.")
        if added["url"]:
            typer.echo(f"Webhook: {added['url']}")
        if added["secret"]:
            typer.echo(f"Secret, said this once: {added['secret']}")

    here.give(added, show)


@app.command()
def remove(context: typer.Context, name: Name) -> None:
    """Forget a trigger; runs that it began go on."""
    here = session(context)
    removed = here.hub().delete(_path(name))
    here.give(removed, lambda console: typer.echo(f"Removed {removed['name']}."))


@app.command()
def fire(context: typer.Context, name: Name, data: Data = "{}") -> None:
    """Have a trigger act now, as on an event with that data that it matches; no other trigger does."""
    here = session(context)
    taken = here.hub().post(f"{_path(name)}/fire", {"data": _object(data)})
    here.give(taken, lambda console: _tell(taken))


def event(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="What steps and triggers know it by.")],
    data: Data = "{}",
    event_id: Annotated[str, typer.Option("--id", help="The same id again is the same event.")] = "",
) -> None:
    """Give the hub an event: it begins the runs of the triggers that name it, and wakes steps that wait for it."""
    here = session(context)
    taken = here.hub().post("/api/events", {"name": name, "data": _object(data), "id": event_id})
    here.give(taken, lambda console: _tell(taken))


def _tell(taken: dict[str, Any]) -> None:
    if not taken["new"]:
        typer.echo("The event was known already; nothing was begun again.")
    for each in taken["deliveries"]:
        if each["trigger"]:
            began = "began" if taken["new"] else "had begun"
            what = f"{began} run {', '.join(each['runs'])}" if each["runs"] else each["error"] or each["state"]
            typer.echo(f"{each['trigger']}: {what}")
        elif each["runs"]:
            typer.echo(f"{'Woke' if taken['new'] else 'Had woken'}: {', '.join(each['runs'])}")
    if not taken["runs"]:
        typer.echo("No run was begun or woken.")


def _on(trigger: dict[str, Any]) -> str:
    document = trigger["document"]
    match trigger["source"]:
        case "schedule":
            spec = document["schedule"]
            if isinstance(spec, str):
                return f"{spec} UTC"
            return f"{spec['cron']} {spec.get('timezone', 'UTC')}"
        case "resource":
            return f"{document['resource']['agent']}: {document['resource']['uri']}"
        case "event":
            return f"event {document['event']}"
        case _:
            return f"webhook ({document.get('webhook', {}).get('verify', 'standard')})"


def _path(name: str) -> str:
    return f"/api/triggers/{quote(name, safe='')}"


def _object(text: str) -> dict[str, Any]:
    from interhub.hub.errors import BadRequest

    try:
        value = jsons.loads(text)
    except ValueError as error:
        raise BadRequest(f"--data is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise BadRequest("--data is not a JSON object")
    return value  # pyright: ignore[reportUnknownVariableType]  # JSON
