"""How a command says that it failed: one clear line and an exit code, or with `--json` a problem document."""

import sys
import traceback
from collections.abc import Mapping
from typing import cast

import typer

from interhub.hub.exits import Exit

from .session import print_json


def report(error: Exception, *, as_json: bool, debug: bool) -> Exit:
    """Say an error, and return the exit code for it."""
    from interhub.hub.client import ApiProblem
    from interhub.hub.errors import BadRequest, problem_of

    code = exit_of(error)
    if isinstance(error, UnicodeEncodeError):  # Python keeps bytes of the command line that are no text as surrogates
        error = BadRequest(f"an argument is not UTF-8 text: {error.object[:80]!r}")
    if isinstance(error, ApiProblem):
        document = dict(error.body)
    else:
        problem = problem_of(error)
        message = problem.message
        if problem.status.reason == "INTERNAL":
            message = f"{type(error).__name__}: {error}; this is a bug in interhub, run again with --debug to see where"
        document = {"title": "The command failed", "detail": message, "code": problem.status.reason, **problem.details}
    if as_json:
        print_json({"error": document})
    else:
        typer.echo(f"interhub: {document.get('detail') or document.get('title')}{_mistakes(document)}", err=True)
    if debug:
        traceback.print_exception(error, file=sys.stderr)
    return code


def exit_of(error: Exception) -> Exit:
    """Return the exit code of an error."""
    from interhub.hub.errors import AddressInUse, AlreadyRunning, HubNotRunning, Unusable
    from interhub.registry import DatabaseError

    match error:
        case HubNotRunning():
            return Exit.NOT_RUNNING
        case AlreadyRunning():
            return Exit.ALREADY_RUNNING
        case AddressInUse():
            return Exit.ADDRESS_IN_USE
        case Unusable() | DatabaseError():
            return Exit.UNUSABLE
        case _:
            return Exit.FAILED


def _mistakes(document: Mapping[str, object]) -> str:
    """Return the mistakes of a plan or body line by line, where the message does not tell them already."""
    found = document.get("mistakes")
    if not isinstance(found, list):
        return ""
    said = str(document.get("detail") or "")
    lines = [f"\n  {mistake.get('where')}: {mistake.get('what')}" for mistake in cast("list[dict[str, object]]", found)]
    return "".join(line for line in lines if line.strip() not in said)
