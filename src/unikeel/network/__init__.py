"""A guest's network.

- :mod:`.ports`: what ``-p`` says, and which ports of a pod lead to its guest.
- :mod:`.joined`: the network of a pod, as it is found in its namespace.
- :mod:`.user`: user-mode networking by passt: no privileges, no devices on the host; the listening sockets are in the host's network
  namespace, the monitor has a private one without any link, and the two talk over a socket pair.

- :mod:`.tap`: a tap device in a container's network namespace, whose link the guest takes over; :mod:`.stations` decides which, :mod:`.redirect` which frames it gets.
- :mod:`.conflist`, :mod:`.plugins`, :mod:`.attachments`: networks of CNI for the embedded engine: read, run, recorded.

What the guest sees is a value (:class:`unikeel.model.plan.Net`), what the host does belongs here.
"""
