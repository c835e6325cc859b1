"""``python tests/lab_support/cri/generate.py``: makes ``cri_pb2.py`` from ``cri.proto`` again, with grpcio-tools of the dev extra."""

from __future__ import annotations

import os
import sys

_TESTS = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def main() -> int:
    """Generate beside this file; protoc's exit status."""
    from grpc_tools import protoc  # type: ignore[import-untyped]

    where = [f"-I{_TESTS}", f"--python_out={_TESTS}", f"--pyi_out={_TESTS}"]
    return int(protoc.main(["protoc", *where, os.path.join(_TESTS, "lab_support", "cri", "cri.proto")]))


if __name__ == "__main__":
    sys.exit(main())
