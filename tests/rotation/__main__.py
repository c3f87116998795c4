"""Entry point of `python -m tests.rotation`."""

import sys

from tests.rotation.run import main

if __name__ == "__main__":
    sys.exit(main())
