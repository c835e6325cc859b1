"""Values and pure decisions: image configuration, choice of the root file system, launch plan.

Nothing here opens, reads or starts anything, and nothing here imports another package of ours (except the errors and the named tuples). Values are
named tuples (:mod:`unikeel.values`), not frozen dataclasses: every command makes all of the classes, and decision 3 says what that costs.
"""
