"""`interhub gc`: remove what is no longer to be kept."""

from typing import TYPE_CHECKING, Annotated

import typer

from .session import session

if TYPE_CHECKING:
    from rich.console import Console


def gc(
    context: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    runs_days: Annotated[
        float | None, typer.Option(help="Remove runs that ended more days ago (retention.runs_days).", min=0)
    ] = None,
    runs_per_tenant: Annotated[
        int | None,
        typer.Option(help="Keep as many ended runs of each tenant (retention.runs_per_tenant).", min=0),
    ] = None,
    audit_days: Annotated[
        float | None, typer.Option(help="Remove audit records of more days ago (retention.audit_days).", min=0)
    ] = None,
) -> None:
    """Remove runs that ended long ago with all that is theirs, large values nobody uses, and old audit records.

    Runs that have not ended are always kept. Without options it goes by the settings.
    """
    here = session(context)
    body = {
        "dry_run": dry_run,
        "runs_days": runs_days,
        "runs_per_tenant": runs_per_tenant,
        "audit_days": audit_days,
    }
    found = here.hub().post("/api/gc", {name: value for name, value in body.items() if value is not None})

    def show(console: "Console") -> None:
        if all(value is None for value in found["rules"].values()):
            console.print("Nothing is removed, as no rule says what: give --runs-days, or set retention.runs_days.")
            return
        done = "Would be removed" if dry_run else "Removed"
        console.print(
            f"{done}: {found['runs']} runs with {found['events']} events, "
            f"{found['blobs']} large values ({found['blob_bytes'] / 1e6:.1f} MB), {found['audit']} audit records."
        )

    here.give(found, show)
