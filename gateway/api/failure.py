"""What may be said of an exception that nobody expected: its type and place, never its values."""

from __future__ import annotations

from pathlib import Path


def bare(error: BaseException) -> str:
    """`KeyError at relay.py:80`. Messages and locals stay out: they may hold a caller's code or a key."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return type(error).__name__
    return f"{type(error).__name__} at {Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
