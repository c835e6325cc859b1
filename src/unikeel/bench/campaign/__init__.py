"""``unikeel bench``: campaigns of measurements that can be interrupted, resumed and repeated.

- :mod:`.scenarios`: what can be measured, and the question that each answers; :mod:`.plan`: a campaign's file (TOML), its cells and blocks;
  the campaigns that come with unikeel are in the directory ``files``;
- :mod:`.journal`: every sample in a file, durable before the next one is taken; :mod:`.results`: reading it back;
- :mod:`.running`: a campaign's run; :mod:`.worlds`: where blocks run; :mod:`.embedded`: this host, without containerd.

Samples are compared by :mod:`unikeel.bench.inference`, and shown by :mod:`unikeel.bench.evaluation`. How to use it, and what the method is: docs/evaluation.md.
"""
