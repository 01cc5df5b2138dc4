"""A support desk: one agent sorts what customers write, one knows the articles, one the handbook.

They are plain functions that answer by rules; put a language model behind any of them, and nothing else changes.
"""

import re
from typing import Any

ARTICLES = {
    "password": "Open Settings, Security, and choose 'Reset password'. The link is good for one hour.",
    "invoice": "Invoices are under Settings, Billing, as PDF, on the first of each month.",
}
HANDBOOK = "Thank you for writing. Please send us your account's name and what you see, and we will look into it."


def triage(message: str) -> dict[str, Any]:
    """Say what a customer's message is about, and how urgent it is."""
    words = set(re.findall(r"\w+", message.lower()))
    if words & {"lawyer", "refund", "chargeback", "breach"}:
        return {"topic": "complaint", "severity": "high"}
    topic = next((known for known in ARTICLES if known in words), "other")
    return {"topic": topic, "severity": "low"}


def articles(message: str, topic: str) -> str:
    """Answer a customer from the article on the topic; refuses where there is none, so that another is turned to."""
    if topic not in ARTICLES:
        raise LookupError(f"there is no article on {topic!r}")
    return ARTICLES[topic]


def handbook(message: str, topic: str) -> str:
    """Answer any customer politely, in general."""
    return HANDBOOK
