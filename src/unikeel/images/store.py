"""The image store of a state root: one OCI layout, images by name or digest."""

from __future__ import annotations

from collections.abc import Callable

from unikeel.errors import BadContent, InvalidArgument, Unavailable, UnikeelError
from unikeel.images import references
from unikeel.images.documents import Document
from unikeel.images.layout import Layout, name_of
from unikeel.images.manifests import Descriptor, Image, LayerRef, image
from unikeel.images.progress import Progress, silent
from unikeel.lean import Final, TypeAlias, TypeVar

#: Most bytes that one source may bring or unpack to, unless told otherwise.
LIMIT: Final = 64 << 30
_RACES: Final = 8

Images: TypeAlias = list[Image]
Entries: TypeAlias = list[Descriptor]
_T = TypeVar("_T")


class ImageStore:
    """The images of a state root. All methods may run in several processes at once.

    :param directory: the layout's directory; it is made when the first image comes.
    :param owners_directory: where the owners of a state root hold their locks (:mod:`unikeel.records.owners`).
    :param limit: most bytes that one load may bring.
    """

    def __init__(self, directory: str, owners_directory: str, limit: int = LIMIT) -> None:
        self.layout = Layout(directory, owners_directory)
        self._limit = limit

    def get(self, reference: str) -> Image:
        """One image, by name (``:latest`` may be left out) or by digest (``sha256:`` may be left out, and all but the first
        four digits, if no other image begins so).

        Reads three small files and no database; the digests of manifest and configuration are checked each time.

        :raise NotFound: there is none; the hint names what comes near. :raise InvalidArgument: several fit.
        :raise BadContent: the store's own files are damaged.
        """

        def read(entries: Entries) -> Image:
            name, entry = _find(entries, reference)
            return self._image(name or _first_name(entries, entry.digest), entry)

        return self._settled(read)

    def list(self) -> Images:
        """All images, sorted by name; one with several names comes several times, those without a name come last.

        :raise BadContent: one of them is damaged; the message says which.
        """
        return self._settled(lambda entries: [self._image(name_of(entry), entry) for entry in entries])

    def digests(self) -> frozenset[str]:
        """The digests of all images, without looking at any of them."""
        return frozenset(entry.digest for entry in self.layout.entries())

    def load(self, source: str, name: str | None = None, progress: Progress | None = None) -> Images:
        """Take the images of an OCI layout directory, an OCI archive or a Docker archive (gzip'ed ones, too) into the store.

        :param name: the name to give, instead of those that the source has; only for a source of one image.
        :raise BadContent: the source is damaged, hostile, for another machine, or over a limit; nothing of it is kept.
        :raise NotFound, PermissionDenied: the source cannot be opened. :raise ResourceExhausted: no space.
        :raise InvalidArgument: the name cannot be one, or the source has several images.
        """
        from unikeel.images import loading

        wanted = None if name is None else references.canonical(name)
        with self.layout.staging() as staging:
            with loading.opened(source, staging.directory, self._limit) as members:
                named = loading.Loader(members, staging, self._limit, progress or silent).load()
            if wanted is not None:
                if len({loaded.entry.digest for _, loaded in named}) > 1:
                    raise InvalidArgument(f"{source} holds several images, which cannot all be named {wanted}")
                named = [(wanted, named[0][1])]
            self.layout.commit(staging, [(found, loaded.entry) for found, loaded in named])
        return [loaded.named(found) for found, loaded in named]

    def pull(self, reference: str, name: str | None = None, progress: Progress | None = None) -> Image:
        """Fetch an image by skopeo and take it into the store.

        :param reference: what skopeo understands (``docker://``, ``oci:``, ``oci-archive:``, ``docker-archive:``, ``dir:``,
            ``containers-storage:``, ``docker-daemon:``); a bare name such as ``nginx:latest`` means a registry.
        :param name: the name to give; by default that of the reference.
        :raise InvalidArgument: no such reference, or it has no name to take. :raise Unavailable: skopeo is missing or failed; the
            message has its last line. :raise BadContent, ResourceExhausted: as :meth:`load`.
        """
        from unikeel.images import loading, pulling

        source = pulling.parse(reference)
        if not (name or source.name):
            raise InvalidArgument(f"{reference} has no name to take", "give one")
        wanted = references.canonical(name or source.name)
        with self.layout.staging() as staging:
            directory = pulling.fetch(source, staging.directory, progress or silent)
            with loading.opened(directory, staging.directory, self._limit) as members:
                named = loading.Loader(members, staging, self._limit, progress or silent).load()
            _, loaded = named[0]
            self.layout.commit(staging, [(wanted, loaded.entry)])
        return loaded.named(wanted)

    def remove(self, reference: str) -> Image:
        """Take a name away, or, by digest, all names of an image; with the last name go the blobs that no other image uses.

        A damaged image can be removed; what is returned then has its name and digest only.

        :raise NotFound, InvalidArgument: as :meth:`get`.
        """
        name, entry = _find(self.layout.entries(), reference)
        try:
            found = self._image(name, entry)
        except UnikeelError:
            found = Image(name, entry.digest, "", "", entry.size, "", "", {}, {}, (), (), (), "", "", ())
        self.layout.drop(name, entry.digest)
        return found

    def layer_blob(self, layer: LayerRef) -> str:
        """Where a layer's blob lies, as it came (perhaps compressed); its digest was checked when it was written."""
        return self.layout.blob_path(layer.digest)

    def read_blob(self, digest: str) -> bytes:
        """A manifest or configuration, its digest checked. :raise BadContent: missing, damaged or larger than 4 MiB."""
        return self.layout.read_blob(digest)

    def _settled(self, read: Callable[[Entries], _T]) -> _T:
        """What ``read`` makes of the index. A concurrent command may have moved a name or removed an image meanwhile; damaged is only
        what stands still."""
        for _ in range(_RACES):
            entries = self.layout.entries()
            try:
                return read(entries)
            except BadContent:
                if self.layout.entries() == entries:
                    raise
        raise Unavailable(f"the images in {self.layout.directory} keep changing", "try again")

    def _image(self, name: str, entry: Descriptor) -> Image:
        parts = self.layout.manifest(entry)
        where = f"{self.layout.directory}: configuration {parts.config.digest}"
        return image(name, entry, parts, Document.parse(self.layout.read_blob(parts.config.digest), where))


def _find(entries: Entries, reference: str) -> tuple[str, Descriptor]:
    by_digest = {entry.digest: entry for entry in entries}
    names = {name_of(entry): entry.digest for entry in entries if name_of(entry)}
    name, digest = references.resolve(reference, names, by_digest)
    return name, by_digest[digest]


def _first_name(entries: Entries, digest: str) -> str:
    return next((name_of(entry) for entry in entries if entry.digest == digest), "")
