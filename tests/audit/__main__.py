"""Entry point of `python -m tests.audit`."""

import sys

from tests.audit.run import main

if __name__ == "__main__":
    sys.exit(main())
