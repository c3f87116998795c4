"""An entry's line, made fast: what the sequencer writes for each request.

The same bytes as `gateway.audit.canonical`, made by msgspec. That module stays the rule: it judges, is all that
a verifier needs, and tests hold this one to it. Here nothing is judged, so only fields that
`gateway.audit.entry` bounded itself may come: whole characters, integers within 2^53, names of its own.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from gateway.audit.canonical import LINE_MAX, CanonicalError

_encoder = msgspec.json.Encoder(order="sorted")


def spell(fields: Mapping[str, object]) -> bytes:
    """`canonical(fields)` of a receipt's entry, unchecked. Raises `CanonicalError`: too long, half a character."""
    try:
        line = _encoder.encode(fields)
    except UnicodeEncodeError:
        raise CanonicalError("a string holds half of a surrogate pair") from None
    if len(line) > LINE_MAX:
        raise CanonicalError(f"the line has {len(line)} bytes, more than {LINE_MAX}")
    return line
