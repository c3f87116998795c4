"""The HTTP/2 state machine (jh2), corrected in two places where RFC 9113 asks for something else.

jh2 has no type stubs and inherits hyper-h2's private methods, which these overrides replace: the version is
pinned and `tests/integration/upstream` shows what each override is for.
"""

from __future__ import annotations

from typing import Any

import jh2.config
import jh2.connection
import jh2.events
import jh2.settings
from jh2.stream import StreamClosedBy

STREAM_WINDOW = 128 * 1024
"""Bytes of an answer that wait at most for a caller who does not read. Above the bandwidth-delay product of
text from a model by orders of magnitude."""

CONNECTION_WINDOW = 16 * 1024 * 1024
"""Credit of a whole connection. It is given back as data arrives, not as it is read, so that callers who do
not read hold up nobody else: what bounds memory is `STREAM_WINDOW` × open streams."""

HEADER_LIST_LIMIT = 64 * 1024


class H2Machine(jh2.connection.H2Connection):  # type: ignore[misc]  # jh2 is untyped
    """hyper-h2's API; client side, bytes headers, no server push."""

    def __init__(self) -> None:
        super().__init__(
            jh2.config.H2Configuration(
                client_side=True,
                header_encoding=None,
                validate_inbound_headers=True,
                # Outgoing headers are made by the gateway, lower-case and without hop-by-hop fields.
                normalize_outbound_headers=False,
                validate_outbound_headers=False,
            )
        )
        codes = jh2.settings.SettingCodes
        self.local_settings = jh2.settings.Settings(
            client=True,
            initial_values={
                codes.ENABLE_PUSH: 0,
                codes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
                codes.MAX_HEADER_LIST_SIZE: HEADER_LIST_LIMIT,
            },
        )

    def start(self) -> None:
        """Queue the preface, SETTINGS and the connection's window."""
        self.initiate_connection()
        self.increment_flow_control_window(CONNECTION_WINDOW - 65_535)

    def _receive_goaway_frame(self, frame: Any) -> tuple[list[Any], list[Any]]:
        """Let the streams in flight finish (section 6.8): hyper-h2 would close the connection's state here."""
        event = jh2.events.ConnectionTerminated()
        event.error_code = frame.error_code
        event.last_stream_id = frame.last_stream_id
        event.additional_data = frame.additional_data or None
        return [], [event]

    def _handle_data_on_closed_stream(self, events: Any, exc: Any, frame: Any) -> tuple[list[Any], list[Any]]:
        """Ignore DATA that crossed our RST_STREAM (section 5.1), apart from its flow-control credit.

        hyper-h2 answers each such frame with another RST_STREAM, and peers that bound resets count them all.
        """
        frames, found = super()._handle_data_on_closed_stream(events, exc, frame)
        if self._stream_closed_by(frame.stream_id) is StreamClosedBy.SEND_RST_STREAM:
            frames = frames[:-1]
        return frames, found

    def _receive_headers_frame(self, frame: Any) -> tuple[list[Any], list[Any]]:
        """Ignore HEADERS that crossed our RST_STREAM, but decode them: HPACK's table is the connection's."""
        if self._stream_closed_by(frame.stream_id) is StreamClosedBy.SEND_RST_STREAM:
            jh2.connection._decode_headers(self.decoder, frame.data)
            return [], []
        frames, events = super()._receive_headers_frame(frame)
        return frames, events
