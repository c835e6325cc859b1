"""The snapshot store as containerd's gRPC service ``containerd.services.snapshots.v1.Snapshots``.

- :mod:`.handlers`: the calls, each a call of the store in a worker thread.
- :mod:`.messages`: between the store's values and the messages.
- :mod:`.serving`: a listening socket on which they are answered.
- :mod:`.opening`: a store that is opened when it is first asked.
- :mod:`.claim`: that one process serves a state root's snapshots, and no second one.

Source of the protocol: ``api/services/snapshots/v1/snapshots.proto`` of containerd, and its ``core/snapshots`` for the meaning.
"""
