"""A small client of containerd's CRI plugin, as the kubelet is one.

:mod:`.cri_pb2` is generated from ``cri.proto`` by :mod:`.generate`; :mod:`.client` is what the tests use.
"""
