"""`interhub connect`: the hub in an MCP client's configuration."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interhub.hub.exits import Exit

from .session import session

if TYPE_CHECKING:
    from rich.console import Console


class ClientName(StrEnum):
    """The clients whose configuration we know."""

    CLAUDE_DESKTOP = "claude-desktop"
    CLAUDE_CODE = "claude-code"
    CURSOR = "cursor"
    VSCODE = "vscode"


def connect(
    context: typer.Context,
    client: Annotated[ClientName, typer.Argument(help="claude-desktop, claude-code, cursor or vscode.")],
    remove: Annotated[bool, typer.Option("--remove", help="Take the hub out again.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before the file is changed.")] = False,
    print_: Annotated[bool, typer.Option("--print", help="Only show the change.")] = False,
    name: Annotated[str, typer.Option(help="Name of the entry in the client's configuration.")] = "interhub",
    project: Annotated[
        bool, typer.Option("--project", help="Change the configuration of the current folder, not the user's.")
    ] = False,
) -> None:
    """Enter the hub in a client's configuration: shows the change, asks, keeps a backup."""
    from interhub.hub import connect as clients
    from interhub.hub.errors import BadRequest

    here = session(context)
    known = clients.clients(project=Path.cwd() if project else None)
    if client.value not in known:
        raise BadRequest(f"{client.value} has no configuration in a project", "leave --project out")
    target = known[client.value]
    if remove:
        change = clients.disconnect(target, name)
    else:
        wanted = clients.entry(target, here.settings().data_dir, here.config)
        change = clients.connect(target, wanted, name)
    document: dict[str, Any] = {
        "client": target.name,
        "file": str(target.file),
        "changed": False,
        "backup": None,
        "diff": change.diff,
        "then": target.then,
    }
    if change.is_none:
        said = "is not in" if remove else "is already in"
        here.give(
            document, lambda console: console.print(f"{name} {said} {target.file}; nothing to change.", markup=False)
        )
        return
    if not here.json:
        _show_diff(here.console(), change.diff)
    if print_:
        if here.json:
            here.give(document, lambda console: None)
        return
    if not yes:
        if here.json or not sys.stdin.isatty():
            raise BadRequest(
                f"{target.file} was left as it is: nobody is there to ask", "add --yes, or --print to only look"
            )
        if not typer.confirm(f"Change {target.file}?", default=True, err=True):
            here.note("Nothing was changed.")
            here.end(Exit.FAILED)
    backup = clients.write(change)
    document |= {"changed": True, "backup": str(backup) if backup else None}

    def show(console: "Console") -> None:
        console.print(f"{target.title}: {target.file} was changed.", markup=False)
        if backup:
            console.print(f"A backup of it is {backup}", markup=False)
        console.print(f"Now {target.then}.", markup=False)
        if not remove:
            console.print(f"To undo it: interhub connect {target.name} --remove", markup=False)

    here.give(document, show)


def _show_diff(console: "Console", diff: str) -> None:
    from rich.text import Text

    styles = {"+": "green", "-": "red", "@": "cyan"}
    for line in diff.splitlines():
        console.print(Text(line, style=styles.get(line[:1], "")))
