"""Who authorises treatment: an agent that reads requests by the rules, and the payer's system that commits to them."""

from typing import Any

COVERED = {"MRI": 900.0, "physiotherapy": 120.0}
_authorised: list[dict[str, Any]] = []


def assess(patient: str, treatment: str, cost: float) -> dict[str, Any]:
    """Hold a request against the rules of cover."""
    limit = COVERED.get(treatment, 0.0)
    why = "within the usual cost" if cost <= limit else f"more than the usual {limit:g}"
    return {"patient": patient, "covered": treatment in COVERED, "within": cost <= limit, "why": why}


def authorise(patient: str, treatment: str, cost: float) -> dict[str, Any]:
    """Commit the payer to a treatment: this cannot be taken back."""
    number = f"PA-{len(_authorised) + 1:04}"
    _authorised.append({"number": number, "patient": patient, "treatment": treatment, "cost": cost})
    return _authorised[-1]


def authorised() -> list[dict[str, Any]]:
    """List what was authorised."""
    return list(_authorised)


payer = {"assess": assess, "authorise": authorise, "authorised": authorised}
