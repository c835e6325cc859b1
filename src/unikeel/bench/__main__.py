"""``python -m unikeel.bench``."""

from __future__ import annotations

import sys

from unikeel.bench.main import main

if __name__ == "__main__":
    sys.exit(main())
