"""The lab: real containerds, and a virtual machine with device-mapper, for tests, benchmarks and people.

- :mod:`.native`: a containerd of Debian trixie or sid on this host, in namespaces of its own;
- :mod:`.machine`: a virtual machine with Debian's kernel, for device-mapper and for systemd;
- :mod:`.place`: what both offer: run this, import that image, restart containerd; :mod:`.configuration`: the files that containerd gets;
- :mod:`.root`, :mod:`.python`, :mod:`.disk`, :mod:`.tools`, :mod:`.images`, :mod:`.bytecode`: what is built once, under ``~/.cache/unikeel/lab``;
- :mod:`.leftovers`: what a lab that ended must not have left; :mod:`.inside`: what runs inside, standard library only.

How it is used: docs/lab.md. Nothing here imports the package under test.
"""
