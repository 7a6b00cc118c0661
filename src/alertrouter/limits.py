"""Every bound on what comes in, in one place. docs/limits.md says what happens at each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """What one body may hold, and how many may be connected for how long. Settings replace some of the defaults.

    body_bytes:  of a body, before and after decompression. Over it: 413.
    alerts:      in one body. Over it: 413.
    depth:       lists and objects inside one another. Over it: 400.
    containers:  lists and objects in one body. Over it: 413.
    labels:      of one alert, and as many annotations; the rest is left out, with a note.
    name:        of a label or detail, in characters; longer ones are cut, with a mark.
    text:        any other text of an alert, in characters; the same.
    key:         what only tells alerts or episodes apart, in characters; longer ones are hashed, so they still do.
    head_s:      for a request's line and headers, from its first byte or the connection's begin, in seconds.
    body_s:      for all of a request, body included, from the same moment on, in seconds.
    idle_s:      between two requests, in seconds.
    answer_s:    for a client to make room for the rest of an answer, in seconds.
    unproven_bytes:  of all bodies on their way from those who show who they are in the body only. Over it: 503.
    connections, connections_per_address:  open at once. Addresses with fewer than `few` are let in up to `spare` more.
    """

    body_bytes: int = 16 * 1024 * 1024
    alerts: int = 10_000
    depth: int = 64
    containers: int = 500_000
    labels: int = 64
    name: int = 128
    text: int = 4_096
    key: int = 255
    head_s: float = 10.0
    body_s: float = 30.0
    idle_s: float = 75.0
    answer_s: float = 30.0
    unproven_bytes: int = 128 * 1024 * 1024
    connections: int = 4_096
    connections_per_address: int = 512
    spare: int = 256
    few: int = 8


#: For those who read bodies and know no settings.
LIMITS = Limits()
