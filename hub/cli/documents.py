"""Workflow and team files on the command line: read here, checked by the hub, and their mistakes shown with lines."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from interhub.hub.client import ApiProblem
from interhub.hub.errors import BadRequest

if TYPE_CHECKING:
    from interhub.hub.supervisor.document import Document


def read_file(path: Path) -> "Document":
    """Parse a workflow's or team's file.

    Raises:
        BadRequest: there is no such file.
        PlanInvalid: its syntax is wrong; says the line.
    """
    from interhub.hub.supervisor.document import read_document

    try:
        return read_document(path.read_bytes(), source=str(path))
    except OSError as error:
        raise BadRequest(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from error


def json_object(text: str, option: str) -> dict[str, Any]:
    """Read the JSON object that an option holds.

    Raises:
        BadRequest: it is none.
    """
    try:
        value = json.loads(text)
    except ValueError as error:
        raise BadRequest(f"{option} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise BadRequest(f"{option} is not a JSON object")
    return cast("dict[str, Any]", value)


def located(problem: ApiProblem, document: Any) -> Exception:
    """Return a problem with the lines of its mistakes, where it has mistakes and the document is known."""
    from interhub.hub.errors import Mistake, PlanInvalid
    from interhub.hub.supervisor.document import Document

    mistakes = problem.body.get("mistakes")
    if problem.code != "PLAN_INVALID" or not isinstance(document, Document) or not isinstance(mistakes, list):
        return problem
    found = [Mistake(str(each["where"]), str(each["what"])) for each in cast("list[dict[str, object]]", mistakes)]
    return document.locate(PlanInvalid(document.source, found))
