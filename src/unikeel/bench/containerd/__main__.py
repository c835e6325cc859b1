"""``python -m unikeel.bench.containerd``."""

from __future__ import annotations

import sys

from unikeel.bench.containerd.main import main

if __name__ == "__main__":
    sys.exit(main())
