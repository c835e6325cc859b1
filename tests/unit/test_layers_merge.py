"""The OCI rules for putting layers on top of each other."""

from __future__ import annotations

import stat
import tarfile

import pytest

from layer_archives import Item, archive, directory, file, hard_link, merged, opaque, symlink, whiteout
from unikeel.errors import BadContent
from unikeel.images.layers import Limits


def test_upper_file_replaces_lower_one() -> None:
    tree = merged(archive(file("a", "lower", uid=1)), archive(file("a", "upper!", uid=2)))
    assert tree["a"].data is not None
    assert (tree["a"].data.source, tree["a"].size, tree["a"].uid) == (1, 6, 2)


def test_missing_parents_are_made_0755_for_root() -> None:
    tree = merged(archive(file("a/b/c", uid=7)))
    assert sorted(tree) == ["", "a", "a/b", "a/b/c"]
    assert (tree["a/b"].mode, tree["a/b"].uid, tree["a/b"].mtime) == (stat.S_IFDIR | 0o755, 0, 0)


def test_root_is_0755_unless_a_layer_describes_it() -> None:
    assert merged(archive(file("a")))[""].mode == stat.S_IFDIR | 0o755
    assert merged(archive(directory("./", 0o1711, uid=3)))[""].mode == stat.S_IFDIR | 0o1711


def test_directory_over_directory_keeps_the_content_and_takes_all_attributes() -> None:
    lower = archive(directory("d", uid=5, pax={"SCHILY.xattr.user.old": "1"}), file("d/f"))
    tree = merged(lower, archive(directory("d", 0o700, mtime=9)))
    assert "d/f" in tree
    assert (tree["d"].mode & 0o7777, tree["d"].uid, tree["d"].mtime, tree["d"].xattrs) == (0o700, 0, 9 * 10**9, None)


def test_file_over_directory_and_directory_over_file() -> None:
    assert sorted(merged(archive(file("d/f")), archive(file("d")))) == ["", "d"]
    assert sorted(merged(archive(file("d")), archive(directory("d"), file("d/f")))) == ["", "d", "d/f"]


def test_directory_over_symlink_replaces_the_link() -> None:
    tree = merged(archive(directory("real"), symlink("d", "real")), archive(directory("d"), file("d/f")))
    assert tree["d"].children is not None
    assert "real/f" not in tree


def test_whiteout_removes_lower_files_and_directories() -> None:
    tree = merged(archive(file("a"), file("d/x"), file("keep")), archive(whiteout("a"), whiteout("d")))
    assert sorted(tree) == ["", "keep"]


@pytest.mark.parametrize("first", [True, False])
def test_whiteout_never_removes_what_its_own_layer_has(*, first: bool) -> None:
    new = [directory("d", 0o711), file("d/new")]
    upper = [whiteout("d"), *new] if first else [*new, whiteout("d")]
    tree = merged(archive(directory("d"), file("d/old"), file("d/sub/old")), archive(*upper))
    assert sorted(tree) == ["", "d", "d/new"]
    assert tree["d"].mode & 0o777 == 0o711


@pytest.mark.parametrize("first", [True, False])
def test_opaque_removes_lower_content_only_whatever_the_order(*, first: bool) -> None:
    lower = archive(directory("d", 0o700, uid=9), file("d/old"), directory("d/sub", 0o700, uid=9), file("d/sub/old"))
    new = [file("d/new"), file("d/sub/new")]
    upper = [opaque("d"), *new] if first else [*new, opaque("d")]
    tree = merged(lower, archive(*upper))
    assert sorted(tree) == ["", "d", "d/new", "d/sub", "d/sub/new"]
    # The directory itself stays; the one below it is gone and only implied by the new file.
    assert (tree["d"].uid, tree["d/sub"].uid, tree["d/sub"].mode & 0o777) == (9, 0, 0o755)


def test_opaque_twice_and_content_between() -> None:
    upper = archive(opaque("d"), file("d/a"), opaque("d"), file("d/b"))
    assert sorted(merged(archive(file("d/old")), upper)) == ["", "d", "d/a", "d/b"]


def test_whiteouts_of_nothing_are_nothing() -> None:
    assert sorted(merged(archive(whiteout("nope"), whiteout("no/pe"), opaque("neither"), file("a")))) == ["", "a"]


def test_removed_and_made_again_in_later_layers() -> None:
    tree = merged(archive(file("a", "1")), archive(whiteout("a")), archive(file("a", "333")))
    assert tree["a"].size == 3


def test_hard_link_to_a_lower_layer_is_the_same_file() -> None:
    tree = merged(archive(file("a", "x")), archive(hard_link("b", "/a")))
    assert tree["a"] is tree["b"]


def test_hard_link_outlives_the_name_it_was_made_from() -> None:
    tree = merged(archive(file("d/a", "x")), archive(hard_link("b", "d/a"), hard_link("d/c", "d/a"), opaque("d")))
    assert sorted(tree) == ["", "b", "d", "d/c"]
    tree = merged(archive(file("a", "x")), archive(hard_link("b", "a"), whiteout("a")))
    assert sorted(tree) == ["", "b"]


def test_hard_link_to_a_symlink_is_the_symlink() -> None:
    tree = merged(archive(file("a", "x"), symlink("s", "a"), hard_link("h", "s")))
    assert stat.S_ISLNK(tree["h"].mode)
    assert tree["h"] is tree["s"]


def test_hard_link_over_a_file_and_to_itself() -> None:
    tree = merged(archive(file("a", "aa"), file("b", "b"), hard_link("b", "a"), hard_link("a", "a")))
    assert tree["b"] is tree["a"]
    assert tree["a"].size == 2


@pytest.mark.parametrize("target", ["usr/lib", "/usr/lib", "./usr/../usr/lib", "loop/../usr/lib"])
def test_writing_through_a_symlinked_directory_inside_the_root(target: str) -> None:
    lower = archive(directory("usr/lib"), directory("loop"), symlink("lib", target), file("usr/lib/old"))
    tree = merged(lower, archive(file("lib/new"), whiteout("lib/old")))
    assert "usr/lib/new" in tree
    assert "usr/lib/old" not in tree
    assert stat.S_ISLNK(tree["lib"].mode)


def test_whiteout_of_a_symlink_removes_the_link_only() -> None:
    tree = merged(archive(file("d/f"), symlink("s", "d")), archive(whiteout("s")))
    assert sorted(tree) == ["", "d", "d/f"]


def test_parent_that_was_replaced_is_not_remembered() -> None:
    tree = merged(archive(file("d/a"), file("d"), directory("d"), file("d/b")))
    assert sorted(tree) == ["", "d", "d/b"]


def test_names_are_bytes() -> None:
    tree = merged(archive(file("caf\udce9"), form=tarfile.GNU_FORMAT))
    assert b"caf\xe9" in (tree[""].children or {})


def test_aufs_notes_are_left_out() -> None:
    assert sorted(merged(archive(file(".wh..wh.plnk/1.2"), file(".wh..wh.aufs"), file("a")))) == ["", "a"]


def test_attributes_of_other_systems_are_left_out() -> None:
    pax = {"SCHILY.xattr.com.apple.quarantine": "x", "SCHILY.xattr.user.mine": "y"}
    assert merged(archive(file("a", pax=pax)))["a"].xattrs == {b"user.mine": b"y"}


@pytest.mark.parametrize(
    ("items", "part"),
    [
        ([file("../x")], "'..'"),
        ([file("a/../../x")], "'..'"),
        ([symlink("s", "../../etc"), file("s/passwd")], "leaves the image's root"),
        ([directory("d"), symlink("d/s", "../../x"), file("d/s/f")], "leaves the image's root"),
        ([symlink("a", "b"), symlink("b", "a"), file("a/f")], "looping links"),
        ([symlink("s", "s"), file("s/f")], "looping links"),
        ([symlink("s", "nowhere"), file("s/f")], "does not exist"),
        ([file("f"), file("f/g")], "not a directory"),
        ([file("f"), symlink("s", "f"), file("s/g")], "not a directory"),
        ([hard_link("h", "missing")], "does not exist"),
        ([directory("d"), hard_link("h", "d")], "directory"),
        ([hard_link("h", "/")], "root directory"),
        ([file("f"), hard_link("h", "../f")], "'..'"),
        ([file("/")], "root directory"),
        ([file(".wh.")], "whiteout without a name"),
        ([file("d/.wh...")], "whiteout without a name"),
        ([file(".wh.d/f")], "below a whiteout"),
        ([symlink("s", "")], "target of 0 bytes"),
        ([symlink("s", "x" * 4096)], "target of 4096 bytes"),
        ([file("n" * 256)], "255"),
        ([file("/".join(["n" * 100] * 50))], "4096"),
    ],
)
def test_refused_entries_name_layer_and_entry(items: list[Item], part: str) -> None:
    *before, last = items
    with pytest.raises(BadContent, match="sha256:layer1: entry") as caught:
        merged(archive(*before), archive(last))
    assert part in caught.value.message
    assert last.name[-300:].rstrip("/") in caught.value.message


def test_links_that_nobody_writes_through_may_point_anywhere() -> None:
    tree = merged(archive(symlink("s", "../../../etc/passwd"), symlink("a", "a"), symlink("n", "/nowhere")))
    assert tree["s"].target == b"../../../etc/passwd"


def test_forty_links_are_followed_and_one_more_is_not() -> None:
    chain = [directory("l0")] + [symlink(f"l{n}", f"l{n - 1}") for n in range(1, 42)]
    assert "l0/f" in merged(archive(*chain, file("l40/f")))
    with pytest.raises(BadContent, match="looping"):
        merged(archive(*chain, file("l41/f")))


@pytest.mark.parametrize(
    ("limits", "part"),
    [
        (Limits(entries=3), "limit of 3 entries"),
        (Limits(metadata_bytes=20), "limit of 20 bytes"),
        (Limits(steps=4), "path lookups"),
    ],
)
def test_limits_count_what_paths_imply(limits: Limits, part: str) -> None:
    with pytest.raises(BadContent, match=part):
        merged(archive(file("aaaaaaaa/bbbbbbbb/cccccccc/d"), file("a/b/c/d")), limits=limits)
