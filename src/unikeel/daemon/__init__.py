"""The daemon: one process for the whole node, which serves the task API, the launcher and the command line.

- :mod:`.main`: its life, from the link to the orderly end.
- :mod:`.link`: the connections and requests that the keeper hands over.
- :mod:`.parts`: what the process is made of, put together.
- :mod:`.reconciling`: what an earlier daemon left.
- :mod:`.watching`: the ends of monitors, as the keeper tells them.
- :mod:`.snapshotting`: containerds' snapshots.
- :mod:`.only_snapshotter`: a daemon that serves nothing else.
- :mod:`.control`: what the command line asks.
- :mod:`.metrics`, :mod:`.exporting`: counting, and letting others read it.
- :mod:`.starting`: the keeper with a daemon, as the command line starts it.
"""
