"""What a block snapshotter costs under containerd, ours beside containerd's own: ``python -m unikeel.bench.snapshotter``.

- :mod:`.plan`: where and how often each thing is measured; :mod:`.layered`: the image that snapshots are made of;
- :mod:`.worlds`: labs with the snapshotters in them, and blocks of samples run there; :mod:`.inside`: what takes them, next to containerd;
- :mod:`.promises`: the promised figures; :mod:`.report`: the table. The file has the format of every benchmark (:mod:`unikeel.bench.rows`).

It needs the lab (the project's directory ``lab``, not part of the package). The meaning of each metric: docs/benchmarks.md.
"""
