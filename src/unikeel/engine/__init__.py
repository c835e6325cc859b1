"""A container's life on one machine, without containerd: create, start, stop, wait, remove; and what is left when a process died.

- :mod:`.engine`: the typed door, which ``unikeel`` (the package) shows as its API; :mod:`.handle`: one container behind it.
- :mod:`.layout`: where everything of a state root is. :mod:`.services`: the stores and processes that the steps work with.
- :mod:`.containers`: the containers' records and their states. :mod:`.settings`: what each is created with.
- :mod:`.creating`; :mod:`.starting`, with :mod:`.preparing` and :mod:`.launching`; :mod:`.stopping`, :mod:`.ending`, :mod:`.clearing`,
  :mod:`.removing`: the steps, each recorded before it is done. :mod:`.unpacking`: an image's committed snapshot.
- :mod:`.ready`: when a guest counts as ready. :mod:`.console`, :mod:`.attach`, :mod:`.terminal`: what it prints, and is told.
- :mod:`.timeline`: named spans of a start. :mod:`.inspecting`: all that is known of a container.
- :mod:`.reconcile`: finishing or undoing what dead processes left.
"""
