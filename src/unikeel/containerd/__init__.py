"""containerd from its clients' side.

- :mod:`.wire`: the messages. :mod:`.records`: the same as plain values. :mod:`.messages`: from one to the other.
- :mod:`.calling`: the connection and the one way to call. :mod:`.client`: all services, by name, of :mod:`.snapshots`,
  :mod:`.stores`, :mod:`.content` and :mod:`.tasks`.
- :mod:`.workflow`: from an image to an exit code, with :mod:`.bringing` (images), :mod:`.oci` (specifications) and
  :mod:`.stdio` (fifos).

Nothing here is imported before it is needed: protobuf and gRPC cost 60 ms.
"""
