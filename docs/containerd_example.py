"""A runnable example of the workflow against containerd; the lab's tests run it (as root)::

    python docs/containerd_example.py build/samples/hello.tar --snapshotter devmapper

Without further options it runs an image of a unikernel by unikeel's runtime; ``--runtime io.containerd.runc.v2`` runs an
ordinary one by runc.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from unikeel.containerd.client import ADDRESS, Containerd
from unikeel.containerd.oci import Process
from unikeel.containerd.workflow import RUNTIME, Fifos, import_image, new_container, unpack


async def main(archive: str, options: argparse.Namespace) -> int:
    """Run an image's program once, with what it prints; returns its exit code."""
    # One connection, one namespace. Every error is of unikeel.errors: NotFound, Unavailable, …
    async with Containerd(options.address, options.namespace) as containerd:
        print(f"containerd {(await containerd.version()).version}")

        # The archive's blobs go to the content store, its layers become snapshots: one committed snapshot per layer, of
        # which an image that is there already costs one question.
        image = await import_image(containerd, archive)
        top = await unpack(containerd, image, options.snapshotter)
        info = await containerd.snapshots(options.snapshotter).stat(top)
        print(f"image {image.name}, its topmost snapshot is {info.kind}: {info.name[:19]}…")

        # The container is a record: a writable snapshot, a specification made of the image's configuration, a runtime.
        # Leaving the block removes container and snapshot, also after an error.
        container = await new_container(
            containerd,
            image,
            options.id,
            snapshotter=options.snapshotter,
            runtime=options.runtime,
            process=Process(args=tuple(options.args)),
            annotations=dict(pair.split("=", 1) for pair in options.annotation),
        )
        # The task is the running thing. Its output comes through fifos and is at its end when the program is.
        async with container, Fifos() as fifos, await container.task(fifos) as task:
            pid = await task.start()
            print(f"task {container.id} runs as pid {pid}")
            output, errors, ended = await asyncio.gather(fifos.stdout.read(), fifos.stderr.read(), task.wait())
            print(output.decode(errors="replace").rstrip())
            print(errors.decode(errors="replace").rstrip(), file=sys.stderr)
            print(f"exit code {ended.status}")
            return ended.status


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="run an image by containerd")
    parser.add_argument("archive")
    parser.add_argument("args", nargs="*", help="in place of the image's command")
    parser.add_argument("--address", default=ADDRESS)
    parser.add_argument("--namespace", default="default")
    parser.add_argument("--snapshotter", default="overlayfs")
    parser.add_argument("--runtime", default=RUNTIME)
    parser.add_argument("--annotation", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--id", default="example")
    return parser.parse_args()


if __name__ == "__main__":
    wanted = options()
    sys.exit(asyncio.run(main(wanted.archive, wanted)))
