"""What runs next to containerd: ``python -m unikeel.bench.containerd.inside REQUEST`` takes a block's samples and prints them.

- :mod:`.session`: the request, the connection, the lines that are printed; :mod:`.census`: what must be gone after a sample;
- :mod:`.processes`: memory and processor time of others; :mod:`.containers`: containers and tasks, made and taken away;
- :mod:`.tasks`, :mod:`.siblings`, :mod:`.crowd`, :mod:`.memory`, :mod:`.returning`: samples of the daemon's work, through containerd;
- :mod:`.acquiring`: samples of identify and acquire alone, in this process; :mod:`.plain`: the view and mount that they are compared with.
"""
