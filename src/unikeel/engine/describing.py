"""Which unikernel configuration a container has: the options', the image's annotations or labels, else its ``urunc.json``."""

from __future__ import annotations

from collections.abc import Mapping

from unikeel.boot.contract import Choice, Source
from unikeel.engine.services import Services
from unikeel.engine.settings import Options
from unikeel.engine.timeline import Timeline
from unikeel.errors import BadContent, InvalidArgument
from unikeel.images.manifests import Image
from unikeel.model.image_fields import FIELDS, NO_BINARY, OWN_PREFIX, GuestConfig
from unikeel.model.names import quote, unknown_hint

#: The largest file of an image that is read for its configuration, in bytes.
_LARGEST = 1 << 20


def guest_config(services: Services, image: Image, options: Options, parent: str, timeline: Timeline) -> GuestConfig:
    """The configuration of a new container.

    :raise BadContent: the image has none, or a wrong one. :raise InvalidArgument: the options do not go together.
    """
    from unikeel.model.image_config import choose

    _check_annotations(options)
    if options.guest or options.kernel:
        return _from_options(options)

    def read_urunc_json() -> bytes | None:
        return read_file(services, "/urunc.json", options, parent, timeline)

    given: Mapping[str, str] = dict(options.annotations)
    guest = choose(given, image.annotations, image.labels, read_urunc_json, image.name or image.digest)
    if guest is None:
        raise BadContent(
            f"{image.name or image.digest} is not a unikernel image: it has neither com.urunc.unikernel.* annotations nor /urunc.json",
            "run it as a microVM with --guest linux --kernel default, or build a unikernel image with `unikeel image build`",
        )
    return guest._replace(monitor=options.monitor) if options.monitor else guest


def _check_annotations(options: Options) -> None:
    """See that annotations of ours mean something: a misspelt one must not be passed over. Images may have those of tasks, which mean nothing here."""
    for key, _ in options.annotations:
        if key.startswith(OWN_PREFIX) and key not in FIELDS:
            known = [name for name in FIELDS if name.startswith(OWN_PREFIX)]
            raise InvalidArgument(f"the annotation {quote(key)} is unknown here", unknown_hint(key, known))


def _from_options(options: Options) -> GuestConfig:
    """``--guest`` and ``--kernel``: the container's snapshot is the guest's root."""
    from unikeel.model.image_config import from_annotations, to_annotations

    if not options.guest or not options.kernel:
        missing = "--kernel (default, or a path in the image)" if options.guest else "--guest"
        raise InvalidArgument(f"{missing} is missing", "--guest and --kernel go together")
    if options.kernel == "default" and options.guest != "linux":
        raise InvalidArgument(f"guest {quote(options.guest)} has no default kernel", "use --guest linux")
    config = GuestConfig(options.guest, options.monitor or "qemu", options.kernel, mount_rootfs=True)
    if options.kernel == "default":
        config = config._replace(binary=NO_BINARY, kernel="default")
    try:
        checked = from_annotations({**to_annotations(config), **dict(options.annotations)}, "the options")
    except BadContent as error:
        raise InvalidArgument(error.message, error.hint) from None
    assert checked is not None
    return checked


def read_file(services: Services, path: str, options: Options, parent: str, timeline: Timeline) -> bytes | None:
    """A small file of the image; None: there is none. Raises as :meth:`unikeel.boot.service.BootFiles.read_file`."""
    from unikeel.boot.readers.contract import PathError, PathReason

    source = Source(services.parent(parent), container="", rootfs=(), guest_ran=False, monitor_uid=0)
    choice = Choice(options.boot_files or services.config.boot_strategy)
    try:
        return services.boot.read_file(source, path, choice, _LARGEST, timeline.note)
    except PathError as error:
        if error.reason is PathReason.MISSING:
            return None
        raise
