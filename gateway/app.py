"""Entry of the supervisor's children: `python -m gateway.app control|public <parent pid>`.

The composition roots are `gateway.control`, of the one control process, and `gateway.worker`, of each process of
the public tree. None imports what only the other needs: a worker knows no SQL and no admin API.
"""

from __future__ import annotations

import gc
import sys

from gateway.begin import begin
from gateway.listeners import public_tree
from gateway.process import raise_open_files
from gateway.serve import die_with_parent


def main(part: str, parent: int) -> int:
    """Returns the exit code, `serve.HOPELESS` when a restart cannot help."""
    die_with_parent(parent)
    settings = begin()
    raise_open_files()
    if part == "public":
        public_tree(settings, "gateway.worker:worker").serve()
        return 0
    gc.disable()  # a sixth of the time that the imports take: all they make stays
    from gateway.control import serve  # noqa: PLC0415  # see above

    gc.enable()
    return serve(settings)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
