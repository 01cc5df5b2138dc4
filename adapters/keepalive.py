"""Asks a silent peer whether it is still there: a connection that died without a word would be waited on for ever.

Routers forget connections, and machines go away, without a word to either end. TCP asks only where it is told to
(RFC 9293, section 3.8.4), and then by default after two hours.
"""

import socket

IDLE_S = 30
"""How long nothing may come before it is asked."""
INTERVAL_S = 10
PROBES = 3
"""After so many without an answer, an interval apart, the connection is broken off."""


def _options() -> tuple[tuple[int, int, int], ...]:
    # Not every platform has all of them; what Linux and Windows call TCP_KEEPIDLE is TCP_KEEPALIVE on macOS.
    wanted = (
        ("TCP_KEEPIDLE", IDLE_S),
        ("TCP_KEEPALIVE", IDLE_S),
        ("TCP_KEEPINTVL", INTERVAL_S),
        ("TCP_KEEPCNT", PROBES),
    )
    timed = [(socket.IPPROTO_TCP, getattr(socket, name), value) for name, value in wanted if hasattr(socket, name)]
    return (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), *timed


KEEPALIVE = _options()
"""The options of a socket: level, name and value."""
