"""The fakes of these tests answer at once."""

from __future__ import annotations

from collections.abc import Iterator
from socketserver import StreamRequestHandler

import pytest


@pytest.fixture(scope="package", autouse=True)
def fakes_answer_at_once() -> Iterator[None]:
    """`http.server` writes an answer's head and its body one by one. Without this, the kernel holds the body back
    until the head is acknowledged: 40 ms of nothing for each request."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StreamRequestHandler, "disable_nagle_algorithm", True)
        yield
