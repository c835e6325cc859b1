"""Random layers against a plain model of the rules, and damaged archives against the parser."""

from __future__ import annotations

import contextlib
import os
import stat
import tarfile
import tempfile

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ext4_images import check, debugfs, stats
from layer_archives import Item, archive, directory, file, flat, layer_of, merged, opaque, unpacked, whiteout
from unikeel.errors import BadContent
from unikeel.images.tarball import entries

NAMES = st.sampled_from(["a", "b", "c"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def layer_items(draw: st.DrawFn) -> list[Item]:
    """A layer without contradictions in itself: every path once, nothing below a file of the same layer."""
    kinds = draw(st.dictionaries(PATHS, st.sampled_from(["file", "directory", "whiteout", "opaque"]), max_size=6))
    files = {path for path, kind in kinds.items() if kind == "file"}
    items = []
    for path, kind in kinds.items():
        if any(path.startswith(other + "/") for other in files):
            continue
        uid = draw(st.integers(0, 9))
        made = {
            "file": file(path, "x" * (uid + 1), uid=uid),
            "directory": directory(path, 0o700, uid=uid),
            "whiteout": whiteout(path),
            "opaque": opaque(path),
        }[kind]
        items.append(made)
    return draw(st.permutations(items))


def model(layers: list[list[Item]]) -> dict[str, tuple[str, int]] | None:
    """Paths to (kind, uid): every layer's removals first, then its entries. Nothing if the layers contradict each other."""
    state: dict[str, tuple[str, int]] = {}
    for items in layers:
        for item in items:
            head, _, tail = item.name.rpartition("/")
            if tail == ".wh..wh..opq":
                state = {path: value for path, value in state.items() if not path.startswith(head + "/")}
            elif tail.startswith(".wh."):
                gone = f"{head}/{tail[4:]}".removeprefix("/")
                state = {
                    path: value for path, value in state.items() if path != gone and not path.startswith(gone + "/")
                }
        entries_only = [item for item in items if ".wh." not in item.name]
        for item in sorted(entries_only, key=lambda item: item.name.count("/")):
            parts = item.name.split("/")
            for count in range(1, len(parts)):
                parent = "/".join(parts[:count])
                if state.setdefault(parent, ("directory", 0))[0] == "file":
                    return None
            is_directory = item.type == tarfile.DIRTYPE
            if not is_directory or state.get(item.name, ("file", 0))[0] == "file":
                state = {path: value for path, value in state.items() if not path.startswith(item.name + "/")}
            state[item.name] = ("directory" if is_directory else "file", item.uid)
    return state


@QUICK
@given(st.lists(layer_items(), min_size=1, max_size=4))
def test_merging_is_what_the_model_says(layers: list[list[Item]]) -> None:
    expected = model(layers)
    try:
        tree = merged(*(archive(*items) for items in layers))
    except BadContent:
        # In some order an entry comes to lie below a lower layer's file before that is replaced.
        return
    found = {path: ("file" if node.children is None else "directory", node.uid) for path, node in tree.items() if path}
    assert expected is None or found == expected


@settings(max_examples=12, deadline=None)
@given(st.lists(layer_items(), min_size=1, max_size=3), st.binary(max_size=9000))
def test_images_of_random_layers_are_clean_and_complete(layers: list[list[Item]], extra: bytes) -> None:
    data = [archive(*items) for items in layers] + [archive(Item("extra", extra))]
    with contextlib.suppress(BadContent):
        expected = merged(*data)
        with tempfile.TemporaryDirectory() as folder:
            unpacked(folder, *(layer_of(folder, each) for each in data), free_bytes=0)
            image = os.path.join(folder, "image")
            check(image)
            found = stats(image, *(f"/{path}" for path in expected))
            for path, node in expected.items():
                seen = found[f"/{path}"]
                assert (seen.mode, seen.uid, seen.ino) == (stat.S_IMODE(node.mode), node.uid, seen.ino)
                assert (seen.type == "directory") == (node.children is not None)
                assert seen.type == "directory" or seen.size == node.size
            assert debugfs(image, "cat /extra").split(b"\n", 1)[1] == extra


GOOD = archive(
    directory("d", uid=3_000_000_000), file("d/f", "content"), file("l" * 120, "more", pax={"SCHILY.xattr.user.a": "b"})
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), max_size=4), st.integers(0, len(GOOD)))
def test_damaged_archives_are_read_or_refused(changes: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(GOOD)
    for position, value in changes:
        data[position] = value
        start = position // 512 * 512
        block = data[start : start + 512]
        # A right checksum lets the damage through to the fields.
        data[start + 148 : start + 156] = b"%06o\0 " % (sum(block) - sum(block[148:156]) + 8 * 32)
    del data[cut:]
    with contextlib.suppress(BadContent):
        tree = merged(bytes(data))
        assert all(node.data is None or node.data.offset + node.size <= len(data) for node in tree.values())


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=3000))
def test_noise_is_read_or_refused(data: bytes) -> None:
    with tempfile.TemporaryFile() as out, contextlib.suppress(BadContent):
        out.write(data)
        out.flush()
        list(entries(out.fileno(), len(data)))


def test_flat_names_every_node() -> None:
    assert sorted(flat(merged(archive(file("a/b")))[""])) == ["", "a", "a/b"]
