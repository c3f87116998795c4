"""Entry point of `python -m tests.limits`."""

import sys

from tests.limits.run import main

if __name__ == "__main__":
    sys.exit(main())
