"""Whether unikeel can run guests on this host: everything is tried, nothing is believed.

- :mod:`.findings`: what a check tells. :mod:`.examination`: all checks, in order.
- :mod:`.host`: root, Python, the kernel's mounts, loop devices, id maps. :mod:`.storage`: the state root, space, reflinks.
- :mod:`.programs`: QEMU, KVM and emulation, passt, skopeo. :mod:`.networks`: taps, CNI's plugins. :mod:`.trial`: a real sandbox, made as a container's is.

A check changes nothing that stays: what it needs lies in a directory of its own, beneath the state root, and goes with it.
"""
