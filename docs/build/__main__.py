"""`python -m docs.build [--check]`: exit code 1 when a committed page is not what the code says."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from docs.build.reference import pages

REFERENCE = Path(__file__).resolve().parents[1] / "reference"


def stale(folder: Path) -> list[str]:
    """Names of the pages in `folder` that differ from what the code says, or are missing."""
    return [
        name
        for name, text in pages().items()
        if not (folder / name).exists() or (folder / name).read_text(encoding="utf-8") != text
    ]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m docs.build", description="Make docs/reference/ from the code."
    )
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a page is stale")
    if parser.parse_args(argv).check:
        for name in (names := stale(REFERENCE)):
            sys.stderr.write(f"docs/reference/{name} is stale: run `make docs`\n")
        return 1 if names else 0
    for name, text in pages().items():
        (REFERENCE / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
