"""ttrpc, the protocol between containerd and its shims, and the task service that speaks it.

- :mod:`.frames`: how a message lies on the wire.
- :mod:`.server`: services of coroutines, over a connection that somebody else holds or over a socket of its own.
- :mod:`.client`: calling such a service.
"""
