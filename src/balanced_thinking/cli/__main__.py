"""`python -m balanced_thinking.cli` is `balanced`."""

import sys

from balanced_thinking.cli import main

sys.exit(main())
