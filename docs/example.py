"""A runnable example of the Python API; the tests run it: ``python docs/example.py build/samples/hello.tar`` (as root)."""

from __future__ import annotations

import sys

import unikeel


def main(archive: str, root: str = "") -> int:
    """Run the sample guest twice, from one snapshot; returns the second run's exit code."""
    with unikeel.Engine(root, notice=lambda sentence: print(f"note: {sentence}")) as engine:
        image = engine.load(archive)[0]
        print(f"loaded {image.name} ({image.digest[:19]}…)")

        options = unikeel.Options(args=("hello", "exit=3"), memory=64 << 20, boot_files="cache", network="none")
        container = engine.create(image.name, options)
        try:
            container.start(ready="first-output", seconds=60)
            print(f"exit code {container.wait()}, printed:")
            print(b"".join(container.logs()).decode(errors="replace").rstrip())

            for span in container.timeline().spans:
                print(f"{span.milliseconds:9.2f} ms  {'  ' if span.parent else ''}{span.name}")

            container.start()
            return container.wait()
        finally:
            container.remove(force=True)


if __name__ == "__main__":
    sys.exit(0 if main(*sys.argv[1:]) == 3 else 1)
