"""``python -m unikeel.bench.snapshotter``."""

from __future__ import annotations

import sys

from unikeel.bench.snapshotter.main import main

if __name__ == "__main__":
    sys.exit(main())
