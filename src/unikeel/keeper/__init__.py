"""The keeper: the one small process per state root that outlives the commands, and the daemon.

It is parent (as a subreaper) of the monitors and keeps their exit statuses, writes their consoles to their logs and to the streams of their tasks, and
holds descriptors of shared views. Standard library only, started on demand, gone when idle. With a daemon it stays: it starts the daemon, again when it
has died, and stands between it and containerd, whose connections and requests outlive it.

- :mod:`.wire`: the messages on its socket.
- :mod:`.main`: the process: set-up, then the service, then the end.
- :mod:`.service`: the requests it answers, and when it may go.
- :mod:`.loop`: epoll and connections. :mod:`.children`: processes it starts, and those it inherits.
- :mod:`.monitors`: launching, adopting, watching monitors, and storing their ends; :mod:`.monitor`: one of them.
- :mod:`.stdio`: the streams of one task; :mod:`.streams`: of all, and logging programs.
- :mod:`.processes`: what the kernel tells of processes that are not its children.
- :mod:`.holding`: descriptors held for the commands. :mod:`.reaper`: the command for ends that nobody watches.
- :mod:`.failpoint`: where tests stop it.
- :mod:`.daemonmode`: what it has beside that with a daemon: :mod:`.supervisor`, the daemon's parent; :mod:`.link`, the messages to it;
  :mod:`.listeners`, the sockets in front of it; :mod:`.front`, connections and unanswered requests; :mod:`.peer`, one connection; :mod:`.frames`, what
  of ttrpc must be known; :mod:`.relay`, connections that go to another shim.
- :mod:`.systemd`: the service manager, where one runs it; :mod:`.journal`: a connection's state in memory that the manager keeps.
- :mod:`.client`: what the engine uses; :mod:`.starter` starts the process when there is none, :mod:`.connection` talks to it.

Only ``client`` is imported by the rest of unikeel. What the process itself imports is the standard library and these modules.
"""
