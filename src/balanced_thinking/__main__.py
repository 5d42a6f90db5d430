"""`python -m balanced_thinking` is `balanced`."""

import sys

from balanced_thinking.cli import main

if __name__ == "__main__":
    sys.exit(main())
