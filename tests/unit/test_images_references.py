"""Names and references of images."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unikeel.errors import InvalidArgument, NotFound, UnikeelError
from unikeel.images import references

A, B = "sha256:" + "a" * 64, "sha256:" + "a" * 4 + "b" * 60
NAMES = {"nginx:latest": A, "registry.example:5000/team/app:1.2": B}


@pytest.mark.parametrize(
    ("given_name", "stored"),
    [
        ("nginx", "nginx:latest"),
        ("nginx:1", "nginx:1"),
        ("docker.io/library/nginx", "nginx:latest"),
        ("index.docker.io/team/app:2", "team/app:2"),
        ("host:5000/app", "host:5000/app:latest"),
        ("docker.io/docker.io/x", "x:latest"),
        (f"nginx@{A}", f"nginx@{A}"),
    ],
)
def test_names_are_stored_in_their_familiar_form(given_name: str, stored: str) -> None:
    assert references.canonical(given_name) == stored


@pytest.mark.parametrize(
    "name", ["", "-x", "a b", "a\n", "ä", ":latest", "x:", A, "docker.io/library/", "x" * 256, "x" * 250, "../x", "\0"]
)
def test_what_cannot_be_a_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgument):
        references.canonical(name)


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("nginx", ("nginx:latest", A)),
        ("nginx:latest", ("nginx:latest", A)),
        ("docker.io/library/nginx", ("nginx:latest", A)),
        ("registry.example:5000/team/app:1.2", ("registry.example:5000/team/app:1.2", B)),
        (A, ("", A)),
        ("aaaaa", ("", A)),
        ("sha256:aaaab", ("", B)),
        (f"nginx@{B}", ("", B)),
    ],
)
def test_what_a_reference_means(reference: str, expected: tuple[str, str]) -> None:
    assert references.resolve(reference, NAMES, [A, B]) == expected


def test_a_name_wins_over_digits() -> None:
    assert references.resolve("aaaaa", {"aaaaa:latest": B}, [A, B]) == ("aaaaa:latest", B)


def test_a_prefix_that_fits_several_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="fits 2 images"):
        references.resolve("aaaa", NAMES, [A, B])


def test_one_image_with_two_names_is_no_ambiguity() -> None:
    assert references.resolve("aaaa", {"x:1": A, "y:1": A}, [A, A]) == ("", A)


@pytest.mark.parametrize(
    "reference", ["aaa", "ngnix", "sha256:cccc", "sha256:aaa", "sha256:", "nginx@sha256:" + "c" * 64]
)
def test_nothing_found(reference: str) -> None:
    with pytest.raises(NotFound):
        references.resolve(reference, NAMES, [A, B])


def test_the_nearest_name_is_the_hint() -> None:
    with pytest.raises(NotFound) as caught:
        references.resolve("ngnix", NAMES, [A, B])
    assert caught.value.hint == "did you mean nginx:latest?"


@settings(max_examples=100)
@given(st.text(max_size=40) | st.from_regex(r"[a-z.:/@-]{1,30}", fullmatch=True))
def test_storing_a_stored_name_changes_nothing(name: str) -> None:
    try:
        stored = references.canonical(name)
    except InvalidArgument:
        return
    assert references.canonical(stored) == stored
    assert references.resolve(name, {stored: A}, [A]) == (stored, A)


@settings(max_examples=100)
@given(st.text(max_size=80), st.sets(st.integers(0, 16**64 - 1), min_size=1, max_size=5))
def test_any_text_finds_an_image_or_fails_with_our_error(reference: str, numbers: set[int]) -> None:
    known = [f"sha256:{number:064x}" for number in numbers]
    try:
        name, found = references.resolve(reference, {"x:latest": known[0]}, known)
    except UnikeelError:
        return
    assert found in known
    assert name in ("", "x:latest")


@settings(max_examples=100)
@given(st.sets(st.integers(0, 16**64 - 1), min_size=1, max_size=8), st.integers(4, 64))
def test_a_prefix_finds_its_image_unless_another_shares_it(numbers: set[int], length: int) -> None:
    known = [f"sha256:{number:064x}" for number in numbers]
    for digest in known:
        prefix = digest[7 : 7 + length]
        sharing = [other for other in known if other[7:].startswith(prefix)]
        if len(sharing) == 1:
            assert references.resolve(prefix, {}, known) == ("", digest)
        else:
            with pytest.raises(InvalidArgument):
                references.resolve(prefix, {}, known)
