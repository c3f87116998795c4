"""Node.js as the tests' environment pins it, and the npm packages of `tests/npm`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

NODE: Final = Path(sys.executable).parent / "node"
NPM: Final = Path(__file__).parents[1] / "npm"
"""Scripts that import npm packages live here: Node looks for `node_modules` beside them."""


def node() -> str:
    """The interpreter's path. Raises `RuntimeError` that says what to run when something is not installed."""
    if not NODE.exists() or not (NPM / "node_modules").is_dir():
        raise RuntimeError("Node.js or the npm packages of tests/npm are not installed: run `make test` once")
    return str(NODE)
