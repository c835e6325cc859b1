"""The confined monitor: an ordinary OCI container, made by crun (or runc), that runs one monitor and nothing else.

- :mod:`.spec`: the bundle's ``config.json``, a pure function of the launch plan and the limits.
- :mod:`.seccomp`: the system calls a monitor may make.
- :mod:`.root`: the empty root directory that the bind mounts go into, shared by all sandboxes.
- :mod:`.runtime`: which OCI runtime, and its create, start and delete, run by the keeper.
- :mod:`.choosing`: which runtime, by a trial once per boot of the host.
- :mod:`.remains`: what a sandbox leaves when whoever made it was killed.
- :mod:`.sockets`: the listening sockets and fifos a monitor inherits.
- :mod:`.controlling`: talking to a monitor, by :mod:`.qmp` (QEMU), :mod:`.http_api` (Cloud Hypervisor) or :mod:`.mconsole` (user-mode Linux).
"""
