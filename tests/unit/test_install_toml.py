"""Edits of somebody else's TOML: what stays, what is refused, and that undoing is exact."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unikeel.errors import BadContent, FailedPrecondition
from unikeel.install import texts, toml_edit

PATH = "/etc/containerd/conf.d/unikeel.toml"
DEBIAN = """version = 2

[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    [plugins."io.containerd.grpc.v1.cri".cni]
      bin_dir = "/usr/lib/cni" # theirs
      conf_dir = "/etc/cni/net.d"
"""
BLOCK = texts.block(2, "unikeel", "devmapper")

MAIN_FILES = [
    "",
    "# nothing but a comment",
    "version = 3\n",
    "version = 3\nimports = []\n",
    'version = 3\nimports = ["/a.toml"] # mine\n',
    "imports=['/a.toml',\n  '/b.toml', # [tricky]\n]\nversion = 3\n",
    "  imports = [ # a list\n  ]\nversion = 3\n[plugins]\n",
    DEBIAN,
    '"imports" = ["x"]\n',
]


@pytest.mark.parametrize("text", MAIN_FILES)
def test_an_import_is_added_and_taken_out_again_to_the_byte(text: str) -> None:
    edited = toml_edit.with_import(text, PATH, "main")
    before, after = tomllib.loads(text), tomllib.loads(edited)
    assert after["imports"] == [PATH, *before.get("imports", [])]
    assert {key: value for key, value in after.items() if key != "imports"} == {
        key: value for key, value in before.items() if key != "imports"
    }
    assert all(line in edited.splitlines() for line in text.splitlines() if "imports" not in line)
    assert toml_edit.without_import(edited, PATH, "main") == text


@pytest.mark.parametrize("text", ["[plugins]\n[plugins.x]\nimports = ['no']\n", "a = '''\nimports = [\n'''\n"])
def test_imports_of_something_else_are_not_ours(text: str) -> None:
    assert tomllib.loads(toml_edit.with_import(text, PATH, "main"))["imports"] == [PATH]


@pytest.mark.parametrize(
    "text",
    [
        "a = '''\nimports = [\n'''\nimports = ['/a']\n",
        '"\\u0069mports" = ["/a"]\n',
        "imports = \\\n",
    ],
)
def test_what_cannot_be_edited_safely_is_refused(text: str) -> None:
    with pytest.raises((FailedPrecondition, BadContent)) as caught:
        toml_edit.with_import(text, PATH, "main.toml")
    assert "main.toml" in str(caught.value)


@pytest.mark.parametrize("text", ["imports = 'x'\n", "imports = [1]\n", "imports = [['x']]\n"])
def test_imports_that_are_none(text: str) -> None:
    with pytest.raises(BadContent, match="list of strings"):
        toml_edit.with_import(text, PATH, "main")


def test_an_import_that_is_not_there_is_not_taken_out() -> None:
    assert toml_edit.without_import(DEBIAN, PATH, "main") == DEBIAN


def test_an_import_that_was_moved_is_refused() -> None:
    with pytest.raises(FailedPrecondition, match="imports"):
        toml_edit.without_import(f'imports = ["/a", "{PATH}"]\n', PATH, "main")


def test_other_imports_that_came_later_stay() -> None:
    edited = toml_edit.with_import("version = 3\n", PATH, "main").replace(f'"{PATH}"]', f'"{PATH}", "/later.toml"]')
    assert tomllib.loads(toml_edit.without_import(edited, PATH, "main"))["imports"] == ["/later.toml"]


@pytest.mark.parametrize("text", ["", "version = 2", DEBIAN, DEBIAN.rstrip("\n"), "[plugins]\n"])
def test_a_block_is_added_replaced_and_taken_out(text: str) -> None:
    edited = toml_edit.with_block(text, BLOCK, "main")
    runtimes = toml_edit.table_at(tomllib.loads(edited), texts.runtime_path(2))
    assert runtimes["unikeel"]["snapshotter"] == "devmapper"
    assert edited.startswith(text)
    other = toml_edit.with_block(edited, texts.block(2, "other", ""), "main")
    assert list(toml_edit.table_at(tomllib.loads(other), texts.runtime_path(2))) == ["other"]
    assert toml_edit.without_block(edited, "main").rstrip("\n") == text.rstrip("\n")
    assert toml_edit.has_block(edited)
    assert not toml_edit.has_block(text)


@pytest.mark.parametrize(
    "text",
    [
        "plugins = {}\n",
        '[plugins]\n"io.containerd.grpc.v1.cri" = {sandbox_image = "x"}\n',
        '[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.unikeel]\nruntime_type = "theirs"\n',
        '[plugins]\n"io.containerd.grpc.v1.cri" = 3\n',
        texts.BEGIN,
        texts.END,
        BLOCK + BLOCK.replace(".unikeel]", ".two]"),
    ],
)
def test_a_block_that_cannot_stand_there_is_refused(text: str) -> None:
    with pytest.raises(FailedPrecondition, match=r"main\.toml is written in a way"):
        toml_edit.with_block(text, BLOCK, "main.toml")


def test_a_version_of_ours_goes_unless_something_needs_it() -> None:
    edited = toml_edit.with_version("root = '/x'\n", 3, "main")
    assert tomllib.loads(edited) == {"root": "/x", "version": 3}
    assert toml_edit.without_version(edited, "main") == "root = '/x'\n"
    assert toml_edit.without_version(edited + "[plugins.x]\n", "main") == edited + "[plugins.x]\n"
    assert toml_edit.without_version("version = 3\n", "main") == "version = 3\n"


@given(st.text(max_size=60), st.sampled_from(MAIN_FILES))
def test_no_text_is_edited_into_another_meaning(noise: str, base: str) -> None:
    text = base + noise
    try:
        before = tomllib.loads(text)
        edited = toml_edit.with_block(toml_edit.with_import(text, PATH, "main"), BLOCK, "main")
    except (tomllib.TOMLDecodeError, FailedPrecondition, BadContent, RecursionError):
        return
    after = tomllib.loads(edited)
    assert after["imports"] == [PATH, *before.get("imports", [])]
    assert {key: after[key] for key in before if key not in ("imports", "plugins")} == {
        key: before[key] for key in before if key not in ("imports", "plugins")
    }
