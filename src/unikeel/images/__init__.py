"""Images: one OCI layout per state root, loading, pulling and building.

- :mod:`.store`: what others use: :class:`~.store.ImageStore`.
- :mod:`.layout`, :mod:`.staging`: the layout on disk, and where blobs come into being.
- :mod:`.manifests`, :mod:`.documents`, :mod:`.digests`, :mod:`.references`: pure readers of what images say.
- :mod:`.loading`, :mod:`.sources`, :mod:`.archives`, :mod:`.pulling`: directories, archives and registries.
- :mod:`.build`, :mod:`.description`, :mod:`.packing`, :mod:`.compressing`, :mod:`.outputs`: from a directory to an image.
- :mod:`.unpack`: from layers to one ext4 image, with :mod:`.layers` (a blob as plain bytes), :mod:`.tarball`, :mod:`.tarfields`,
  :mod:`.tarsparse`, :mod:`.expanding` (what a tar holds) and :mod:`.tree` (the layers merged).
- :mod:`.progress`: how long work tells where it stands.
"""
