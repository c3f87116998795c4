"""`orgate demo`: the whole gateway on this machine in one command, and what it does, shown."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["demo"]


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running until Ctrl-C.")] = False,
    home: Annotated[
        Path | None, typer.Option("--home", help="Folder to use; else a temporary one, removed at the end.")
    ] = None,
) -> None:
    """Start a gateway with everything embedded and a demo model, and show a completion through it.

    Two organizations, a sign-in, a streamed completion, two cancellations that reach the model, a limit, a
    refusal between organizations, and an audit log that is exported, verified and tampered with.
    """
    from cli.demo.stopping import Stopping

    # Watched from before there is a folder until after it is gone.
    with Stopping().watch() as stopping, tempfile.TemporaryDirectory(prefix="orgate-demo-") as temporary:
        from cli.demo.story import tell

        code = tell(Path(temporary) if home is None else home, stopping, keep=keep)
    sys.exit(code)
