"""The trace context of a message: W3C's ``traceparent`` and ``tracestate``, read strictly. Knows no tracer."""

import re
from collections.abc import Mapping
from types import MappingProxyType

TRACEPARENT, TRACESTATE = "traceparent", "tracestate"

TRACEPARENT_PATTERN = "^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"
"""Version, trace, span and flags (W3C Trace Context, 3.2). Later versions may have more; such are ignored."""

LONGEST_TRACESTATE = 512
"""Most characters of a ``tracestate``: so many each service must pass on (W3C Trace Context, 3.3.1.5)."""

Carrier = Mapping[str, str]
"""A trace context by the names of its HTTP headers."""

NO_TRACE: Carrier = MappingProxyType({})

_TRACEPARENT = re.compile(TRACEPARENT_PATTERN.strip("^$"))
_INVALID = re.compile(r"ff-.*|..-0{32}-.*|.{35}-0{16}-..")
_TRACESTATE = re.compile(rf"[ -~]{{1,{LONGEST_TRACESTATE}}}")


def read_trace(value: object) -> Carrier:
    """Return the trace context in a mapping; an empty one if there is none that is valid. Other entries are ignored."""
    if not isinstance(value, Mapping):
        return NO_TRACE
    parent, state = value.get(TRACEPARENT), value.get(TRACESTATE)
    if not isinstance(parent, str) or not _TRACEPARENT.fullmatch(parent) or _INVALID.fullmatch(parent):
        return NO_TRACE
    if not isinstance(state, str) or not _TRACESTATE.fullmatch(state):
        return {TRACEPARENT: parent}
    return {TRACEPARENT: parent, TRACESTATE: state}
