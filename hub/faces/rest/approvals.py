"""What waits for a person, over REST: the questions of all runs that the caller may answer, and their answers."""

from typing import Any

from pydantic import TypeAdapter
from starlette.responses import Response

from interhub.hub.faces.http import note
from interhub.hub.faces.shapes import approval_shape
from interhub.hub.service import Hub
from interhub.hub.supervisor.run import Answer

from .bodies import AnswerQuestion, ApprovalsQuery
from .operations import Asked, Operation, json_response


def approval_operations(hub: Hub) -> list[Operation[Any, Any]]:
    """Return what can be asked of approvals."""

    async def listed(asked: Asked[None, ApprovalsQuery]) -> Response:
        state = None if asked.query.state == "any" else asked.query.state
        found = await hub.approvals(asked.principal, state=state, limit=asked.query.limit)
        return json_response({"approvals": [approval_shape(each) for each in found]})

    async def show(asked: Asked[None, None]) -> Response:
        return json_response(approval_shape(await hub.approval(asked.principal, asked.path("question_id"))))

    async def answer(asked: Asked[AnswerQuestion, None]) -> Response:
        body, question_id = asked.body, asked.path("question_id")
        given = Answer(parts=body.read(""), accepted=body.accepted, digest=body.digest, by=asked.principal)
        run = await hub.approve(given, question_id)
        note(asked.request.scope, run_id=run.id)
        return json_response(approval_shape(await hub.approval(asked.principal, question_id)))

    return [
        Operation(
            name="list_approvals",
            method="GET",
            path="/api/approvals",
            summary="List what waits for you: the questions and approvals that you may answer, and those of your runs.",
            answer=listed,
            answers={200: "Approvals"},
            query=TypeAdapter(ApprovalsQuery),
        ),
        Operation(
            name="show_approval",
            method="GET",
            path="/api/approvals/{question_id}",
            summary="Show one question: exactly what would be called, by whom it is asked, and until when.",
            answer=show,
            answers={200: "Approval"},
            refusals=(409,),
        ),
        Operation(
            name="answer_approval",
            method="POST",
            path="/api/approvals/{question_id}/answer",
            summary="Answer a question. The first answer counts.",
            answer=answer,
            answers={200: "Approval"},
            refusals=(403, 409),
            body=TypeAdapter(AnswerQuestion),
        ),
    ]
