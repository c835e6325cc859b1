"""containerd's filter language and the regular expressions in it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unikeel.errors import InvalidArgument
from unikeel.snapshots.contract import Info, Kind
from unikeel.snapshots.filters import parse_filter, parse_filters
from unikeel.snapshots.patterns import MAX_PATTERN, compile_pattern

_INFO = Info("a/b", "base", Kind.ACTIVE, 1, 2, {"plain": "x y", "dot.ted": "1,2", "empty": ""})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name==a/b", True),
        ("name==a", False),
        (' name == "a/b" , kind == active', True),
        ("name!=a", True),
        ("missing!=x", True),
        ("missing==x", False),
        ('missing==""', False),
        ("parent", True),
        ("labels.empty", True),
        ("labels.missing", False),
        ("labels", False),
        ("name.x", False),
        ('labels.plain=="x y"', True),
        (r'labels.plain=="x\x20\u0079"', True),
        (r'labels.plain=="x\040y"', True),
        ('labels."dot.ted"=="1,2"', True),
        ("labels.dot.ted", True),
        ("name~=^a", True),
        ("name~=/a\\/b/", True),
        ("name~=|a.b$|", True),
        ("name~=/^b/", False),
        ('name~="^(a|c)/"', True),
        ("kind==ACTIVE", False),
    ],
)
def test_one_filter(text: str, *, expected: bool) -> None:
    assert parse_filter(text)(_INFO) is expected


@pytest.mark.parametrize(
    "text",
    [
        "==a",
        "name=",
        "name==",
        "name==a,",
        ",name",
        "name.",
        "name..x",
        '"open',
        'name=="\\q"',
        'name=="\\x2"',
        'name=="\\ud800"',
        'name=="\\U99999999"',
        'name=="\\',
        "name~=/open",
        "name~=[",
        "name a",
        "é!",
        "x" * 20000,
    ],
)
def test_malformed_filters_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_filter(text)


def test_several_filters() -> None:
    assert parse_filters([])(_INFO)
    assert parse_filters(["name==x", "kind==active"])(_INFO)
    assert not parse_filters(["name==x", "kind==view"])(_INFO)
    with pytest.raises(InvalidArgument):
        parse_filters(["name"] * 1025)


@given(st.text('name.lbk=!~"/|\\ x0,é', max_size=30))
def test_any_text_is_a_filter_or_refused(text: str) -> None:
    try:
        matches = parse_filter(text)
    except InvalidArgument:
        return
    assert matches(_INFO) in (True, False)


@given(st.text('ab"\\, =é\n|', max_size=20))
def test_a_quoted_value_is_compared_as_it_is(value: str) -> None:
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    info = Info("x", "", Kind.VIEW, 0, 0, {"k": value})
    assert parse_filter(f'labels.k=="{quoted}"')(info)
    assert not parse_filter(f'labels.k!="{quoted}"')(info)


_ATOMS = st.sampled_from(["a", "b", ".", "[ab]", "[^a]", r"\d", r"\W", "[0-9a]", r"\.", "1", "-"])
_PATTERNS = st.recursive(
    _ATOMS,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda two: f"(?:{two[0]}|{two[1]})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "*?", "{2}", "{1,3}", "{0,2}", "{1,}"])).map(
            lambda two: f"({two[0]}){two[1]}"
        ),
    ),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(_PATTERNS, st.sampled_from(["", "^"]), st.sampled_from(["", "$"]), st.text("ab1.-", max_size=8))
def test_patterns_mean_what_they_mean_elsewhere(pattern: str, start: str, end: str, text: str) -> None:
    pattern = f"{start}({pattern}){end}"
    assert compile_pattern(pattern)(text) == bool(re.search(pattern, text))


@pytest.mark.parametrize(
    "pattern",
    ["(", ")", "a**", "*a", "[", "[b-a]", "(?i)a", "a{3,2}", "a{999}", r"\1", r"\b", "\\", "[[:alpha:]]", "(" * 40],
)
def test_malformed_patterns_are_refused(pattern: str) -> None:
    with pytest.raises(InvalidArgument):
        compile_pattern(pattern)


def test_large_patterns_are_refused() -> None:
    for pattern in ("a" * (MAX_PATTERN + 1), "(a{200}){200}", "((a{99}){2}){9}"):
        with pytest.raises(InvalidArgument):
            compile_pattern(pattern)


def test_a_pattern_that_others_never_finish_is_answered() -> None:
    assert not compile_pattern("^(((a*)*)*)*(b|(a+)+)+c$")("a" * 300)
