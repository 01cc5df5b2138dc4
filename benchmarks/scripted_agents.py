"""The agents that the benchmarks give work to: they answer at once, so that what is measured is the hub."""

from interhub.adapters import Completed, InputRequired, Outcome, Resume, TextPart


async def greet(message: str) -> str:
    """Greet whoever is named: say hello, wish a good morning."""
    return f"hello, {message[:40]}"


async def sign(message: str, resume: Resume | None = None) -> Outcome:
    """Ask a person to sign off an invoice, and wait for the signature."""
    if resume is None:
        return InputRequired(question=(TextPart(text=f"May this be signed? {message[:40]}"),))
    return Completed(parts=(TextPart(text="signed"),))
