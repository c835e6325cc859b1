"""The sample images: small, built here from C sources and Debian packages, used by the demo, the tests and the benchmarks.

- :mod:`.build`: the command; what is up to date is left alone.
- :mod:`.images`: what each sample holds.
- :mod:`.compiling`, :mod:`.debian`: programs from C sources, files from Debian packages.
- :mod:`.kmod`, :mod:`.initramfs`: which kernel modules a guest needs, and the initrd that loads them.
- :mod:`.trees`, :mod:`.ballast`: directories with fixed modes, and bytes that nothing can compress.
"""
