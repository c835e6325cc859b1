"""What runs next to containerd: ``python -m unikeel.bench.snapshotter.inside REQUEST`` takes a block's samples and prints them.

- :mod:`.session`: the request, the connections, the lines that are printed; :mod:`.processes`: what a daemon has used so far;
- :mod:`.serial`: one call after the other; :mod:`.crowd`: many at once; :mod:`.unpacking`: an image with five layers;
  :mod:`.cost`: bytes written and processor time; :mod:`.full`: a store with many snapshots.

Every module takes one contender after the other in each round, in another order in each.
"""
