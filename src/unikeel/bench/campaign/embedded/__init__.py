"""Scenarios on this host, by our own engine and without containerd: a command for each start, as a user gives it.

- :mod:`.world`: the state root, its images, and which module takes a block's samples; :mod:`.images`: images of a size;
- :mod:`.starting`: one start and its figures; :mod:`.census`: what must be on the host before a sample, and gone after it;
- :mod:`.sequential`, :mod:`.siblings`, :mod:`.burst`, :mod:`.churn`, :mod:`.acquire`, :mod:`.snapshots`, :mod:`.memory`: the scenarios.
"""
