"""W3C trace context on its way through the hub: cheap where nobody exports spans, as it is out of the box."""

from collections.abc import Mapping

from opentelemetry import propagate, trace

trace.get_tracer_provider()
# It has looked for a provider that the environment names, which it does anew at each call while there is none, for as
# much as a microsecond. Whether one has been set since is this module variable of its.


def spans_are_exported() -> bool:
    """Whether spans are recorded at all: without a provider of the OpenTelemetry SDK, they only pass contexts on."""
    return trace._TRACER_PROVIDER is not None  # pyright: ignore[reportPrivateUsage]  # see below


def carrier_of(span: trace.Span) -> Mapping[str, str]:
    """Return what a call sends along to be a child of a span; nothing where there is no trace."""
    about = span.get_span_context()
    if not about.is_valid:
        return {}
    if about.trace_state or spans_are_exported():
        carrier: dict[str, str] = {}
        propagate.inject(carrier, trace.set_span_in_context(span))
        return carrier
    return {"traceparent": f"00-{about.trace_id:032x}-{about.span_id:016x}-{about.trace_flags:02x}"}
