"""The block snapshot store: committed file-system images, and writable or read-only snapshots made from them.

- :mod:`.contract`: what a store does (containerd's words and meaning) and the values it speaks in.
- :mod:`.recorded`: what the back ends have in common.
- :mod:`.thin`: the back end ``thin``, one thin device per snapshot, in a pool.
- :mod:`.file_store`: the back end ``file``, one image file per snapshot.
- :mod:`.image_files`, :mod:`.tidying`, :mod:`.empty`: its directory, what is taken away from it, a snapshot without a parent.
- :mod:`.metadata`, :mod:`.rows`, :mod:`.spare_records`, :mod:`.naming`: the records every back end keeps, and what may be in them.
- :mod:`.spares`, :mod:`.idle`, :mod:`.spare_files`: snapshots made ahead, when, and those of files.
- :mod:`.filters`, :mod:`.patterns`: containerd's filter language, and its regular expressions.
- :mod:`.copying`, :mod:`.qcow2`: how a writable snapshot is made from a committed one.
- :mod:`.ext4`: writes a whole file system into a file.

The suite that every store must pass is :mod:`unikeel.testing.snapshot_suite`.
"""
