"""Power cuts: what a snapshot store answered is on the disk, wherever the power goes away.

Everything here runs inside the lab's virtual machine, on a disk of its own that holds the state root's file system and a thin pool:

- :mod:`.journal`: what was asked and answered, as a log on the same disk, and what must be there for it (pure);
- :mod:`.work`: random calls of a store, journaled; :mod:`.check`: what is left after a cut, against the journal;
- :mod:`.write_log`: the log of device-mapper's log-writes target: every write, and what a flush had made durable (pure);
- :mod:`.disks`: the disk and its parts; :mod:`.stores`: the stores that are tried; :mod:`.__main__`: all of it as a command.
"""
