"""Joining other programs of the host: what has to be written where, shown before it is done, and taken back exactly.

``texts`` are the files, ``toml_edit`` the edits of somebody else's TOML, ``situation`` what is there, ``planning`` the changes, ``changes``
their execution, ``record`` what was written. Only ``situation``, ``changes`` and ``record`` touch the host. deploy/ is made from ``texts``, too
(:mod:`unikeel.install.deploy`).
"""
