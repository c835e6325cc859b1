"""Edits of somebody else's TOML: text is put in or taken out, all else stays byte for byte, and what it then means is checked."""

from __future__ import annotations

import tomllib
from typing import Any, Final

from unikeel.errors import BadContent, FailedPrecondition
from unikeel.install.texts import BEGIN, END

#: Keys that mean something else in a file of another version; one without a version is of version 1.
VERSIONED: Final = ("plugins", "disabled_plugins", "required_plugins", "proxy_plugins")
_MARK: Final = " # by `unikeel install containerd`"


def parse(text: str, source: str) -> dict[str, Any]:
    """What a file means. :raise BadContent: it is not TOML."""
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadContent(
            f"{source} is not TOML: {str(error)[:200]}", "containerd would not start with it either"
        ) from None


def table_at(document: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    """The table at a path; empty if there is none."""
    here: Any = document
    for name in path:
        here = here.get(name) if isinstance(here, dict) else None
    return here if isinstance(here, dict) else {}


def imports_of(document: dict[str, Any], source: str) -> list[str]:
    """The files that a configuration imports. :raise BadContent: ``imports`` is no list of strings."""
    found = document.get("imports", [])
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise BadContent(f"{source}: imports is not a list of strings")
    return found


def with_import(text: str, path: str, source: str) -> str:
    """The text with one more import, in its first place. :raise FailedPrecondition: it cannot be put in safely."""
    before = parse(text, source)
    imports = imports_of(before, source)
    if "imports" not in before:
        edited = f"imports = [{_string(path)}]{_MARK}\n{text}"
    else:
        start = _start_of_imports(text, source)
        separator = ", " if imports else ""
        edited = text[:start] + _string(path) + separator + text[start:]
    return _checked(edited, {**before, "imports": [path, *imports]}, source)


def without_import(text: str, path: str, source: str) -> str:
    """The text without the import that :func:`with_import` put in; as it is, if there is none of ours."""
    before = parse(text, source)
    rest = list(imports_of(before, source))
    if path not in rest:
        return text
    rest.remove(path)
    line = f"imports = [{_string(path)}]{_MARK}\n"
    if text.count(line) == 1 and not rest:
        return _checked(
            text.replace(line, ""), {key: value for key, value in before.items() if key != "imports"}, source
        )
    start = _start_of_imports(text, source)
    for written in (_string(path) + ", ", _string(path)):
        if text.startswith(written, start):
            return _checked(text[:start] + text[start + len(written) :], {**before, "imports": rest}, source)
    raise _by_hand(source, f"take {path} out of its imports")


def with_version(text: str, version: int, source: str) -> str:
    """The text of a file that names no version, with one."""
    return _checked(f"version = {version}{_MARK}\n{text}", {**parse(text, source), "version": version}, source)


def without_version(text: str, source: str) -> str:
    """The text without the version that :func:`with_version` put in, if it did and nothing else needs it by now."""
    for line in text.splitlines(keepends=True):
        if line.startswith("version = ") and line.endswith(_MARK + "\n"):
            rest = {key: value for key, value in parse(text, source).items() if key != "version"}
            if any(key in rest for key in VERSIONED):
                return text
            return _checked(text.replace(line, "", 1), rest, source)
    return text


def has_block(text: str) -> bool:
    """Whether there is a block of ours."""
    return BEGIN in text and END in text[text.index(BEGIN) :]


def with_block(text: str, block: str, source: str) -> str:
    """The text with our block at its end, in place of an earlier one. :raise FailedPrecondition: it cannot be put there."""
    bare = without_block(text, source)
    joint = "" if not bare or bare.endswith("\n") else "\n"
    edited = bare + joint + block
    try:
        wanted = _merged(parse(bare, source), tomllib.loads(block))
    except ValueError:
        raise _by_hand(source, "add the runtime's table") from None
    return _checked(edited, wanted, source)


def without_block(text: str, source: str) -> str:
    """The text without our block. :raise FailedPrecondition: its marks are damaged."""
    if BEGIN not in text and END not in text:
        return text
    start = text.find(BEGIN)
    end = text.find(END, start)
    if start < 0 or end < 0 or text.count(BEGIN) != 1:
        raise _by_hand(source, "take our block out")
    edited = text[:start] + text[end + len(END) :]
    parse(edited, source)
    return edited


def _merged(into: dict[str, Any], table: dict[str, Any]) -> dict[str, Any]:
    """Two documents as one. :raise ValueError: both have the same key."""
    result = dict(into)
    for key, value in table.items():
        if key not in result:
            result[key] = value
        elif isinstance(value, dict) and isinstance(result[key], dict):
            result[key] = _merged(result[key], value)
        else:
            raise ValueError(key)
    return result


def _start_of_imports(text: str, source: str) -> int:
    """Where the list of ``imports`` begins, behind its bracket."""
    position = 0
    for line in text.splitlines(keepends=True):
        bare = line.lstrip()
        name, equals, rest = bare.partition("=")
        if equals and name.strip().strip("\"'") == "imports" and rest.lstrip().startswith("["):
            return position + line.index("[", line.index("=")) + 1
        if bare.startswith("["):
            break
        position += len(line)
    raise _by_hand(source, "edit its imports")


def _string(text: str) -> str:
    """A TOML string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _checked(edited: str, wanted: dict[str, Any], source: str) -> str:
    """The edited text, if it means what it should. :raise FailedPrecondition: it does not."""
    try:
        if tomllib.loads(edited) == wanted:
            return edited
    except tomllib.TOMLDecodeError:
        pass
    raise _by_hand(source, "make this change")


def _by_hand(source: str, what: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"{source} is written in a way that does not let us {what}", "do it by hand; --dry-run and deploy/ show how"
    )
