"""Pools: room for snapshots that unikeel itself made out of block devices or files, and keeps in order.

- :mod:`.definition`, :mod:`.registry`: what a pool is made of, and the files that say so.
- :mod:`.planning`: what creating, growing and repairing would do, as values.
- :mod:`.file_pool`, :mod:`.thin_pool`: the two kinds, made, activated, grown, taken away.
- :mod:`.opening`: a pool ready to be used by a store.
- :mod:`.watching`: how full it is.
- :mod:`.thin_metadata`: which snapshots a thin pool holds.
- :mod:`.checking`: what is wrong between a pool and the records, and what mends it.
"""
