"""A guest's network.

- :mod:`.ports`: what ``-p`` says, and which ports of a pod lead to its guest.
- :mod:`.joined`: the network of a pod, as it is found in its namespace.
- :mod:`.user`: user-mode networking by passt: no privileges, no devices on the host; the listening sockets are in the host's network
  namespace, the monitor has a private one without any link, and the two talk over a socket pair.

Tap devices, for containers with a network namespace of their own, come behind the same seam: what the guest sees is a value
(:class:`unikeel.model.plan.UserNet`), what the host does belongs here.
"""
