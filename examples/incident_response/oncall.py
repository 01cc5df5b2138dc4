"""Who is on call: agents that look at a service, one that changes traffic, and one that tells people.

What they change is kept in this process, so that one can see what was done and undone.
"""

from typing import Any

_diverted: set[str] = set()
_told: list[str] = []


def logs(service: str) -> dict[str, Any]:
    """Look for what the service's logs say."""
    return {"service": service, "errors": 412, "most": "connection pool exhausted"}


def metrics(service: str) -> dict[str, Any]:
    """Look at how the service does."""
    return {"service": service, "error_rate": 0.31}


def divert(service: str) -> str:
    """Send the service's traffic to the standby."""
    _diverted.add(service)
    return f"the traffic of {service} goes to the standby"


def restore(service: str) -> str:
    """Send the service's traffic where it belongs."""
    _diverted.discard(service)
    return f"the traffic of {service} goes where it belongs"


def tell(text: str) -> str:
    """Tell those who are on call."""
    _told.append(text)
    return text


def state() -> dict[str, Any]:
    """Say what is diverted now, and what people were told."""
    return {"diverted": sorted(_diverted), "told": list(_told)}


oncall = {"logs": logs, "metrics": metrics, "divert": divert, "restore": restore, "tell": tell, "state": state}
