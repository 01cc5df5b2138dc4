"""`interhub approvals`: what agents ask people, in all runs at once, and the answers."""

from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from .session import session

if TYPE_CHECKING:
    from rich.console import Console

    from interhub.hub.client import HubClient

app = typer.Typer(help="Questions and approvals that wait for a person.", no_args_is_help=True)

QuestionId = Annotated[str, typer.Argument(help="The question's id; its beginning is enough where no other begins so.")]


@app.command("list")
def list_approvals(
    context: typer.Context,
    state: Annotated[str, typer.Option(help="open, answered, closed, expired or any.")] = "open",
    limit: Annotated[int, typer.Option(min=1, max=200, help="Most questions.")] = 50,
) -> None:
    """List what you may answer and what your runs ask, newest first."""
    here = session(context)
    found: dict[str, Any] = here.hub().get("/api/approvals", {"state": state, "limit": limit})

    def show(console: "Console") -> None:
        from rich.markup import escape
        from rich.table import Table

        from .watch import parts_text

        if not found["approvals"]:
            console.print("Nothing waits for you." if state == "open" else "There is none.")
            return
        table = Table(box=None, pad_edge=False)
        for column in ("QUESTION", "STATE", "WHO ASKS", "STEP", "WHAT"):
            table.add_column(column, no_wrap=True, overflow="ellipsis")
        for each in found["approvals"]:
            doing = f"{each['agent_id']}/{each['capability']}" if each["capability"] else each["agent_id"]
            said = parts_text(each["parts"]).partition("\n")[0]
            told = each["state"] if each["for_me"] or each["state"] != "open" else "for others"
            table.add_row(each["id"], told, escape(doing), escape(each["step"]), escape(said))
        console.print(table)

    here.give(found, show)


@app.command("show")
def show_approval(context: typer.Context, question_id: QuestionId) -> None:
    """Show a question: exactly what would be called, who asks, who may answer, and until when."""
    here = session(context)
    hub = here.hub()
    found = hub.get(_path(hub, question_id))

    def show(console: "Console") -> None:
        from rich.markup import escape

        from .watch import asked_text

        console.print(escape(asked_text(found["parts"])), soft_wrap=True)
        rows = {
            "question": found["id"],
            "state": found["state"] + (f" by {found['answered_by']}" if found["answered_by"] else ""),
            "agent": found["agent_id"],
            "capability": found["capability"],
            "run": found["run_id"],
            "step": found["step"],
            "asked by": found["asked_by"],
            "answer by": ", ".join(found["answer_by"]),
            "expires": found["expires_at"] or "",
            "digest": found["digest"],
        }
        for name, value in rows.items():
            if value:
                console.print(f"{name:<11}{escape(value)}", soft_wrap=True)

    here.give(found, show)


@app.command()
def answer(
    context: typer.Context,
    question_id: QuestionId,
    text: Annotated[
        str, typer.Argument(help="The answer in words, yes or no to an approval; else you are asked.")
    ] = "",
    data: Annotated[str, typer.Option(help="The answer as a JSON object, where a form is asked for.")] = "",
    decline: Annotated[bool, typer.Option("--decline", help="Decline.")] = False,
) -> None:
    """Answer a question. The first answer counts, and it is good for what was shown only."""
    from interhub.hub.errors import BadRequest

    from .documents import json_object
    from .watch import ask

    here = session(context)
    hub = here.hub()
    path = _path(hub, question_id)
    asked = hub.get(path)
    body: dict[str, Any] = {"accepted": not decline, "digest": asked["digest"]}
    if data:
        body["data"] = json_object(data, "--data")
    if text:
        body["text"] = text
    if not (text or data or decline):
        if not here.interactive:
            raise BadRequest("no answer was given", "give it in words, with --data or with --decline")
        given = ask(asked)
        del given["question_id"]
        body |= given
    found = hub.post(f"{path}/answer", body)
    done = "accepted" if found["accepted"] else "declined"
    here.give(found, lambda console: console.print(f"Answered ({done}); run {found['run_id']} goes on."))


def _path(hub: "HubClient", question_id: str) -> str:
    """Return the path of a question, found by its id or by the beginning of one."""
    if len(question_id) < 32:
        known = [each["id"] for each in hub.get("/api/approvals", {"state": "any", "limit": 200})["approvals"]]
        matching = [each for each in known if each.startswith(question_id)]
        if len(matching) == 1:
            question_id = matching[0]
    return f"/api/approvals/{quote(question_id, safe='')}"
