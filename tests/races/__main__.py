"""Entry point of `python -m tests.races`."""

import sys

from tests.races.run import main

if __name__ == "__main__":
    sys.exit(main())
