"""How several test processes share the suite (`pytest -n 2`): a file at a time, in the order of the folders."""

from __future__ import annotations

import re
from typing import Any

from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]

_TOGETHER = re.compile(r"tests/(isolation|integration/(abuse|cancellation|clients|gateway|oauth/certified|web))/")
"""Folders whose files share a gateway, which takes seconds to start: one process has them all."""


class InOrder(LoadFileScheduling):  # type: ignore[misc]  # xdist says nothing of its types
    def __init__(self, config: Any, log: Any) -> None:
        # Biggest files first, which is xdist's own way, would leave and enter a folder again and again.
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        found = _TOGETHER.match(nodeid)
        return found[0] if found else str(super()._split_scope(nodeid))
