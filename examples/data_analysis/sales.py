"""Who analyses sales: an agent that reads one region's file, and one that puts what all found together."""

import csv
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "sales"


def regions() -> list[str]:
    """List the regions that there are files of."""
    return sorted(path.stem for path in FOLDER.glob("*.csv"))


def analyse(region: str) -> dict[str, Any]:
    """Sum up one region; refuses a file that holds what is no number."""
    with (FOLDER / f"{region}.csv").open(newline="") as file:
        amounts = {row["month"]: float(row["amount"]) for row in csv.DictReader(file)}
    return {"region": region, "total": sum(amounts.values()), "best": max(amounts, key=amounts.__getitem__)}


def synthesise(regions: list[str], found: list[dict[str, Any] | None], errors: list[dict[str, Any]]) -> dict[str, Any]:
    """Put the regions together; those that could not be read are named, not hidden."""
    known = sorted((one for one in found if one is not None), key=lambda one: float(one["total"]), reverse=True)
    total = sum(float(one["total"]) for one in known)
    words = f"{len(known)} of {len(regions)} regions sold {total:g}; {known[0]['region'] if known else 'none'} leads"
    missing = {regions[error["index"]]: error["message"] for error in errors}
    return {"summary": words, "total": total, "ranking": [one["region"] for one in known], "missing": missing}


analyst = {"regions": regions, "analyse": analyse, "synthesise": synthesise}
