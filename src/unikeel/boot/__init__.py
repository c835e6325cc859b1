"""Boot files: kernel, initrd and configuration out of an image's committed snapshot, by four strategies behind one door.

:class:`unikeel.boot.service.BootFiles` is the door, :mod:`unikeel.boot.contract` its words. The strategies are
:mod:`.cache`, :mod:`.shared`, :mod:`.view` and :mod:`.copies`, made by :mod:`.strategies`; :mod:`.policy` chooses among them. They share :mod:`.ledger`
and :mod:`.reached` (records), :mod:`.flight` (doing a thing once), :mod:`.reaching`, :mod:`.hostmounts`, :mod:`.mounted` and :mod:`.sources` (opening committed
snapshots), :mod:`.lowest` (which layer has them), :mod:`.objects` and :mod:`.settling` (the cache on disk), :mod:`.listing`, :mod:`.spans` (timing).
:mod:`.readers` reads file systems in user space.
"""
