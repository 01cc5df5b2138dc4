"""The hub's upkeep over REST: removing what is no longer to be kept. For the holder of the hub's own key."""

from typing import Any

from pydantic import Field, TypeAdapter
from starlette.responses import Response

from interhub.hub.auth import LOCAL
from interhub.hub.errors import NotAllowed
from interhub.hub.supervisor.retention import Retention, Rules

from .bodies import Body
from .operations import Asked, Operation, json_response


class Collect(Body):
    """What is to be removed; what is not given is as the settings say (`retention`)."""

    dry_run: bool = Field(default=False, description="Only count what would be removed.")
    runs_days: float | None = Field(default=None, ge=0, description="Runs that ended more days ago than that.")
    runs_per_tenant: int | None = Field(default=None, ge=0, description="Of each tenant's ended runs all but as many.")
    audit_days: float | None = Field(default=None, ge=0, description="Audit records older than that.")

    def rules(self, settled: Rules) -> Rules:
        """Return the rules that are given, or else those that are settled."""
        given = Rules(runs_days=self.runs_days, runs_per_tenant=self.runs_per_tenant, audit_days=self.audit_days)
        return given if given.any else settled


class Upkeep:
    """Answers."""

    def __init__(self, retention: Retention, settled: Rules) -> None:
        """`settled` are the rules of the settings."""
        self._retention = retention
        self._settled = settled

    def operations(self) -> list[Operation[Any, Any]]:
        """Return what can be asked."""
        return [
            Operation(
                name="collect_garbage",
                method="POST",
                path="/api/gc",
                summary="Remove runs that ended long ago, large values nobody uses, and old audit records.",
                answer=self.collect,
                answers={200: "Removed"},
                refusals=(403,),
                body=TypeAdapter(Collect),
            )
        ]

    async def collect(self, asked: Asked[Collect, None]) -> Response:
        """Remove by rules, or count."""
        if asked.principal != LOCAL:
            raise NotAllowed("removing what others have", "only the holder of the hub's own key may")
        rules = asked.body.rules(self._settled)
        removed = await self._retention.collect(rules, dry_run=asked.body.dry_run)
        return json_response(
            {
                "dry_run": asked.body.dry_run,
                "rules": {
                    "runs_days": rules.runs_days,
                    "runs_per_tenant": rules.runs_per_tenant,
                    "audit_days": rules.audit_days,
                },
                "runs": removed.runs,
                "events": removed.events,
                "blobs": removed.blobs,
                "blob_bytes": removed.blob_bytes,
                "audit": removed.audit,
                "oldest_ended_at": removed.oldest.isoformat() if removed.oldest is not None else None,
            }
        )
