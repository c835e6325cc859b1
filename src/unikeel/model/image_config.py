"""An image's unikernel configuration: what its annotations, its labels or its ``urunc.json`` say about how to run it.

The format is urunc's: annotations ``com.urunc.unikernel.*`` and a file ``urunc.json`` at the image's root, a flat JSON object whose
keys are the full annotation names and whose values are standard base64. We add annotations ``org.unikeel.*``, which other
runtimes ignore. Only the names in :data:`FIELDS` are read; any other is on no command line, ever.

Sources and their order: annotations given by the caller win over those of the image's manifest, these over the image's labels, name by
name. If type, hypervisor and binary are all there, ``urunc.json`` is not read; otherwise it alone is used.

Encoding: urunc up to 0.7 wanted base64 in annotations, later versions plain text. A set of annotations counts as base64 only if *every*
value of it decodes strictly to printable UTF-8 and the decoded type and hypervisor are known names (``qemu`` and ``true`` are themselves
valid base64). Annotations of our own are always plain text; ``urunc.json`` is always base64, for our own keys, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from unikeel.errors import BadContent
from unikeel.lean import Final
from unikeel.model.image_fields import FIELDS, PREFIX, REQUIRED, VALUE_LIMIT, GuestConfig
from unikeel.model.names import GUESTS, MONITORS, check_pair, quote

#: The longest ``urunc.json`` that is read, in bytes.
URUNC_JSON_LIMIT: Final = 1 << 20


def from_annotations(annotations: Mapping[str, str], source: str) -> GuestConfig | None:
    """The configuration that one set of annotations or labels holds.

    :param annotations: the set; other people's annotations in it are ignored.
    :param source: what to call the set in a message, such as ``annotations of the manifest``.
    :returns: None unless type, hypervisor and binary are all there and not empty.
    :raises BadContent: a value breaks its rule, or names an unknown guest, monitor or pair.
    """
    return _complete(_decoded(annotations, source), source)


def from_urunc_json(data: bytes, source: str) -> GuestConfig:
    """The configuration that the bytes of an ``urunc.json`` hold.

    :raises BadContent: too long, not UTF-8, not a JSON object, a key twice, a value that is not a string or not base64 of UTF-8, one
        of the three required keys missing, or whatever :func:`from_annotations` refuses.
    """
    values = {
        key: _from_base64(value, key, source) for key, value in _json_object(data, source).items() if key in FIELDS
    }
    config = _complete(values, source)
    if config is None:
        missing = ", ".join(key for key in REQUIRED if not values.get(key))
        raise BadContent(f"{source}: {missing} missing", "type, hypervisor and binary are required")
    return config


def choose(
    given: Mapping[str, str],
    manifest: Mapping[str, str],
    labels: Mapping[str, str],
    read_urunc_json: Callable[[], bytes | None],
    image: str,
) -> GuestConfig | None:
    """The configuration of a container, from all its sources in their order.

    :param given: annotations of the container's own specification.
    :param read_urunc_json: called only if the annotations are not complete; None: the image has no such file.
    :param image: the image's name, for messages.
    :returns: None if this is no unikernel image.
    :raises BadContent: as :func:`from_annotations` and :func:`from_urunc_json`.
    """
    values: dict[str, str] = {}
    for name, found in (
        ("labels", labels),
        ("annotations of the manifest", manifest),
        ("given annotations", given),
    ):
        values |= {key: value for key, value in _decoded(found, f"{image}: {name}").items() if value}
    config = _complete(values, f"{image}: annotations")
    if config is not None:
        return config
    data = read_urunc_json()
    return None if data is None else from_urunc_json(data, f"{image}: urunc.json")


def to_annotations(config: GuestConfig) -> dict[str, str]:
    """The plain annotations that :func:`from_annotations` reads back as ``config``; defaults are left out."""
    values: dict[str, str] = {}
    for key, field in FIELDS.items():
        value = getattr(config, field.name)
        if value not in ("", None) and value != GuestConfig._field_defaults.get(field.name):
            values[key] = value if isinstance(value, str) else str(value).lower()
    return values


def _complete(values: Mapping[str, str], source: str) -> GuestConfig | None:
    """Check every value, then what must hold between them."""
    if not all(values.get(key) for key in REQUIRED):
        return None
    check_pair(values[REQUIRED[0]], values[REQUIRED[1]], source)
    fields = {field.name: _checked(values[key], key, source) for key, field in FIELDS.items() if values.get(key)}
    config = GuestConfig(**fields)  # type: ignore[arg-type]  # the table pairs each name with its type; a test checks that
    if config.block and not config.block_mount:
        raise BadContent(f"{source}: {PREFIX}block needs {PREFIX}blkMntPoint", "'/' makes it the guest's root")
    return config


def _checked(value: str, key: str, source: str) -> str | bool:
    try:
        if len(value) > VALUE_LIMIT:
            raise ValueError(f"must not be longer than {VALUE_LIMIT} characters")
        return FIELDS[key].parse(value)
    except ValueError as error:
        raise BadContent(f"{source}: {key} {error}, not {quote(value)}") from None


def _decoded(annotations: Mapping[str, str], source: str) -> dict[str, str]:
    """The annotations that we read, as plain text."""
    for key, value in annotations.items():
        if not isinstance(value, str):
            raise BadContent(f"{source}: the value of {quote(str(key))} is not a string")
    decoded = _strictly_base64({key: value for key, value in annotations.items() if key.startswith(PREFIX)})
    known = {key: value for key, value in annotations.items() if key in FIELDS}
    return known | {key: value for key, value in decoded.items() if key in FIELDS}


def _strictly_base64(annotations: Mapping[str, str]) -> dict[str, str]:
    """The decoded set, if it counts as base64 (see the head of this module); otherwise nothing."""
    decoded: dict[str, str] = {}
    for key, value in annotations.items():
        text = _printable_base64(value)
        if text is None:
            return {}
        decoded[key] = text
    is_known = decoded.get(REQUIRED[0]) in GUESTS and decoded.get(REQUIRED[1]) in MONITORS
    return decoded if is_known else {}


def _printable_base64(value: str) -> str | None:
    """The printable text that a string is the one canonical base64 form of; None if it is not."""
    from binascii import a2b_base64, b2a_base64

    try:
        data = a2b_base64(value, strict_mode=True)
        text = data.decode()
    except ValueError:
        return None
    return text if text.isprintable() and b2a_base64(data, newline=False).decode() == value else None


def _from_base64(value: str, key: str, source: str) -> str:
    """One value of ``urunc.json``. Line breaks inside are passed over, as Go's decoder does that wrote and reads these files."""
    from binascii import a2b_base64

    try:
        return a2b_base64(value.replace("\n", "").replace("\r", ""), strict_mode=True).decode()
    except ValueError:
        raise BadContent(f"{source}: {key} is not base64 of UTF-8 text: {quote(value)}") from None


def _json_object(data: bytes, source: str) -> dict[str, str]:
    """A flat JSON object of strings, each key once."""
    import json

    def unique(pairs: list[tuple[str, object]]) -> dict[str, str]:
        found: dict[str, str] = {}
        for key, value in pairs:
            if key in found:
                raise BadContent(f"{source}: key {quote(key)} is there twice")
            if not isinstance(value, str):
                raise BadContent(f"{source}: the value of {quote(key)} is not a string")
            found[key] = value
        return found

    if len(data) > URUNC_JSON_LIMIT:
        raise BadContent(f"{source} has {len(data)} bytes; {URUNC_JSON_LIMIT} are the limit")
    try:
        found: object = json.loads(data.decode(), object_pairs_hook=unique)
    except UnicodeDecodeError as error:
        raise BadContent(f"{source} is not UTF-8: byte {error.start} does not fit") from None
    except (ValueError, RecursionError) as error:
        raise BadContent(f"{source} is not JSON: {str(error)[:200]}") from None
    if not isinstance(found, dict):
        raise BadContent(f"{source} is not a JSON object", "it must be one flat object of base64 strings")
    return found
