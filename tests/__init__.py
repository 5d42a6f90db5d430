"""The tests. No test asks a hub: set before anything is imported that reads it."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
