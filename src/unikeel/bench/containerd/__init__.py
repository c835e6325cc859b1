"""What unikeel costs under containerd, and whether what was promised of it is kept: ``python -m unikeel.bench.containerd``.

- :mod:`.plan`: where and how often each thing is measured; :mod:`.progress`: how far a run is, and how long it will take;
- :mod:`.worlds`: labs with a containerd in them, and blocks of samples run there;
- :mod:`.lines`: how samples come out of a lab; :mod:`.inside`: what takes them in there, next to containerd;
- :mod:`.promises`: the promised figures; :mod:`.report`: the table. The file has the format of every benchmark (:mod:`unikeel.bench.rows`).

It needs the lab (the project's directory ``lab``, not part of the package). The meaning of each metric: docs/benchmarks.md.
"""
