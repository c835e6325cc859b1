"""What unikeel's promises cost and whether they are kept: ``python -m unikeel.bench``.

- :mod:`.statistics`: percentiles and intervals, pure; :mod:`.rows`: the format of every benchmark's file;
- :mod:`.environment`: what the figures were measured on; :mod:`.stage`: a state root of the bench's own;
- :mod:`.plan`: how much is measured; :mod:`.quiet`: waiting for a host that is idle;
- :mod:`.scenarios`: what is measured, one file each; :mod:`.acquiring`: the process of one sample, :mod:`.contents`: what it is checked against;
- :mod:`.promises`: the promised figures; :mod:`.report`: the table;
- :mod:`.inference`: what may be concluded from samples; :mod:`.campaign`: ``unikeel bench``, whatever of all this in one resumable run;
  :mod:`.evaluation`: what follows from its results, and the report.

The format and the meaning of each metric: docs/benchmarks.md.
"""
