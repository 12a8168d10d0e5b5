"""Settings of the whole suite."""

import os

# Test runners in several processes fix the width of a terminal; each test that needs one says so itself.
for name in ("COLUMNS", "LINES"):
    os.environ.pop(name, None)
