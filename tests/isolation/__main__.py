"""Entry point of `python -m tests.isolation`."""

import sys

from tests.isolation.run import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
