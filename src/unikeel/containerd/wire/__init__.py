"""The messages of containerd's interfaces, ttrpc's, and our own: generated from the ``.proto`` files beside them.

The definitions are our own text and hold what we use; package names and field numbers are those on the wire (each file
names its source). One module has one package:

- ``task_pb2``: ``containerd.task.v2``, what containerd asks a shim (version 3 has the same messages); ``bootstrap_pb2``:
  ``containerd.runtime.bootstrap.v1``, the standard input of a shim's ``start``.
- ``types_pb2``: ``containerd.types`` (``Mount``, ``Descriptor``, ``Envelope``, ``Metric``, ``RuntimeInfo``);
  ``task_types_pb2``: ``containerd.v1.types`` (``Status``, ``Process``, ``ProcessInfo``).
- ``events_pb2``: ``containerd.events``, the bodies of events; ``forward_pb2``: ``containerd.services.events.ttrpc.v1``,
  publishing them; ``event_service_pb2``: ``containerd.services.events.v1``, subscribing.
- ``metrics_v1_pb2``, ``metrics_v2_pb2``: ``io.containerd.cgroups.v1`` and ``.v2``.
- ``options_runtime_pb2``: ``runtimeoptions.v1``; ``options_runc_pb2``: ``containerd.runc.v1``.
- ``containers_pb2``, ``images_pb2``, ``content_pb2``, ``snapshots_pb2``, ``leases_pb2``, ``tasks_pb2``, ``diff_pb2``,
  ``mounts_pb2``, ``introspection_pb2``, ``version_pb2``, ``namespaces_pb2``: the services of these names.
- ``ttrpc_pb2``: the bodies of frames; ``launcher_pb2``, ``control_pb2``: our own services.

``make protos`` makes the modules again. The services in the definitions are there to be read: calls go by name.
"""
