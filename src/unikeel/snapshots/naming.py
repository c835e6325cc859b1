"""What snapshots may be called and labelled with, and how an update of labels is meant: pure decisions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from unikeel.errors import InvalidArgument
from unikeel.lean import Final

_MAX_NAME: Final = 4096
_MAX_LABEL: Final = 4096
_MAX_LABELS: Final = 1024


def check_name(name: str) -> None:
    """:raise InvalidArgument: a key or name is empty, over 4096 bytes, has a NUL or is not Unicode text."""
    try:
        length = len(name.encode())
    except UnicodeEncodeError as error:
        raise InvalidArgument(f"the snapshot name {name!r} is not valid Unicode") from error
    if not 0 < length <= _MAX_NAME:
        raise InvalidArgument(f"a snapshot name has 1 to {_MAX_NAME} bytes, not {length}")
    if "\0" in name:
        raise InvalidArgument(f"the snapshot name {name!r} contains a NUL")


def encode_labels(labels: Mapping[str, str]) -> str:
    """Labels as stored. :raise InvalidArgument: too many, too long or not Unicode text."""
    import json

    if len(labels) > _MAX_LABELS:
        raise InvalidArgument(f"a snapshot has at most {_MAX_LABELS} labels, not {len(labels)}")
    for key, value in labels.items():
        try:
            length = len(key.encode()) + len(value.encode())
        except UnicodeEncodeError as error:
            raise InvalidArgument(f"the label {key!r} is not valid Unicode") from error
        if not key or length > _MAX_LABEL:
            raise InvalidArgument(f"the label {key[:64]!r} is empty or, with its value, over {_MAX_LABEL} bytes")
    return json.dumps(dict(labels), sort_keys=True)


def relabelled(old: Mapping[str, str], new: Mapping[str, str], fieldpaths: Iterable[str]) -> dict[str, str]:
    """The labels after an update with these field paths. :raise InvalidArgument: a path names anything but labels."""
    paths = list(fieldpaths)
    for path in paths:
        if path != "labels" and not (path.startswith("labels.") and len(path) > len("labels.")):
            raise InvalidArgument(f"the field {path!r} of a snapshot cannot be updated", "only labels and labels.KEY")
    if not paths or "labels" in paths:
        return dict(new)
    labels = dict(old)
    for path in paths:
        key = path.removeprefix("labels.")
        if new.get(key):
            labels[key] = new[key]
        else:
            labels.pop(key, None)
    return labels
