"""A progress bar on stderr, when somebody is looking at it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol


class Bar(Protocol):
    def advance(self, done: int, of: int | None = None) -> None:
        """`done` in all; `of` when the total has become known, or is another."""


class _NoBar:
    def advance(self, done: int, of: int | None = None) -> None:
        """Nobody is looking."""


class _RichBar:
    def __init__(self, progress: Any, task: Any) -> None:
        self._progress, self._task = progress, task

    def advance(self, done: int, of: int | None = None) -> None:
        self._progress.update(self._task, completed=done, **({"total": of} if of else {}))


@contextmanager
def progress(title: str, total: int) -> Iterator[Bar]:
    """A bar of `total` steps; 0: nobody knows yet how many."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _NoBar()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as shown:
        yield _RichBar(shown, shown.add_task(title, total=total or None))
