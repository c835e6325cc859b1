"""What the tests in ``tests/lab`` share: images, a world with a containerd and a daemon in it, a CRI client, and ideas of "nothing is left"."""
