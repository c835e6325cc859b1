"""The one door to Linux: mounts, loop devices, descriptors, processes.

Nothing else in unikeel issues a mount, an ioctl or a system call by ctypes. Functions raise :class:`OSError` with the kernel's
errno where a caller can act on it, and :class:`unikeel.errors.Unavailable` where the host lacks a means altogether. Modules are
imported one by one by who needs them: this package's ``__init__`` imports nothing.
"""
