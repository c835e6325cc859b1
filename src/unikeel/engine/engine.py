"""The engine of one state root: the door that the command line, the tests and users of the API go through."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from types import TracebackType

from unikeel import config as configuration
from unikeel.boot.contract import Freed, Holding
from unikeel.config import Config
from unikeel.engine.handle import Container
from unikeel.engine.layout import open_layout
from unikeel.engine.reconcile import let_go, reconcile
from unikeel.engine.services import Notice, Services
from unikeel.engine.settings import Options
from unikeel.engine.timeline import Timeline
from unikeel.errors import FailedPrecondition, InvalidArgument, NotFound
from unikeel.lean import TYPE_CHECKING, Self
from unikeel.model.states import ContainerState

if TYPE_CHECKING:
    from unikeel.images.description import Overrides
    from unikeel.images.manifests import Image
    from unikeel.images.progress import Progress

#: Names the state root in the environment; ``--root`` wins over it, it wins over the configuration file.
ROOT_VARIABLE = "UNIKEEL_ROOT"
#: References to archives, of which a container can be made directly (the words are skopeo's).
_ARCHIVES = ("docker-archive:", "oci-archive:")


def silent(sentence: str) -> None:
    """A notice that tells nobody."""
    del sentence


class Engine:
    """Images and containers of one state root. A context manager; not for several threads at once.

    Opening it finishes or undoes what killed commands left, and says so through ``notice``.

    :param root: the state root; by default that of the environment (``UNIKEEL_ROOT``) or of the configuration.
    :param config: path of a configuration file, or an empty string for the default one.
    :param notice: receives sentences meant for the user, such as a fallback or a clean-up.
    :raise ConfigError: the configuration is wrong. :raise PermissionDenied, ResourceExhausted: the root cannot be made.
    """

    def __init__(
        self,
        root: str = "",
        *,
        config: str = "",
        notice: Notice = silent,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self.config: Config = configuration.load(config, environment)
        chosen = root or environment.get(ROOT_VARIABLE, "") or self.config.root
        layout = open_layout(chosen, self.config.run_root)
        self._closed = False
        self._services = Services(layout, self.config, notice, self._reaper(layout.root, config, environment))
        try:
            reconcile(self._services)
        except BaseException:
            self._services.close()
            raise

    @staticmethod
    def _reaper(root: str, config: str, environment: Mapping[str, str]) -> tuple[str, ...]:
        """The command that the keeper runs after the end of a guest that nobody waits for."""
        source = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        # Its errors and notices go to keeper.log; that there was nothing to do is no news.
        quiet = "import os, sys; os.dup2(os.open(os.devnull, os.O_WRONLY), 1)"
        code = f"{quiet}; sys.path.insert(0, {source!r}); from unikeel.cli.main import entry; sys.exit(entry())"
        argv = [sys.executable, "-I", "-c", code, "--root", root]
        path = config or environment.get(configuration.VARIABLE, "")
        if path:
            argv += ["--config", os.path.abspath(path)]
        return (*argv, "reconcile")

    @property
    def root(self) -> str:
        """The state root's path."""
        return self._services.layout.root

    @property
    def services(self) -> Services:
        """What the engine works with: for the front ends and benchmarks of this package, not part of the promised API."""
        return self._services

    # -- images ----------------------------------------------------------------------------------------------------

    def images(self) -> list[Image]:
        """All images of the store, sorted by name."""
        return self._services.images.list()

    def image(self, reference: str) -> Image:
        """One image, by name or digest. :raise NotFound: there is none. :raise InvalidArgument: several fit."""
        return self._services.images.get(reference)

    def load(
        self, source: str, name: str | None = None, *, unpack: bool = True, progress: Progress | None = None
    ) -> list[Image]:
        """Take the images of an OCI layout directory, an OCI archive or a Docker archive into the store.

        :param name: the name to give; only for a source of one image. :param unpack: make the committed snapshots, too, so that the
            first start need not.
        :raise BadContent: damaged, hostile or over a limit; nothing of it is kept. :raise NotFound: no such source.
        :raise ResourceExhausted: no space.
        """
        known = self._services.images.digests()
        images = self._services.images.load(source, name, progress)
        self._unpack(images, known, unpack=unpack, progress=progress)
        return images

    def pull(
        self, reference: str, name: str | None = None, *, unpack: bool = True, progress: Progress | None = None
    ) -> Image:
        """Fetch an image by skopeo, as ``docker://…`` or any other reference that it understands. Parameters and errors: :meth:`load`.

        :raise Unavailable: skopeo is missing or failed; the message has its last line.
        """
        known = self._services.images.digests()
        image = self._services.images.pull(reference, name, progress)
        self._unpack([image], known, unpack=unpack, progress=progress)
        return image

    def build(
        self,
        directory: str | None,
        overrides: Overrides | None = None,
        *,
        name: str | None = None,
        output: str | None = None,
        store: bool = True,
        progress: Progress | None = None,
    ) -> Image:
        """Pack a directory into an image, reproducibly; see :func:`unikeel.images.build.build`.

        :param output: also write it to an OCI archive (``.tar``) or an OCI layout directory. :param store: put it into the store.
        """
        from unikeel.images.build import build

        images = self._services.images if store else None
        return build(directory, output=output, store=images, name=name, overrides=overrides, progress=progress)

    def _unpack(self, images: list[Image], known: frozenset[str], *, unpack: bool, progress: Progress | None) -> None:
        """Make the committed snapshots of images that have just come; one of which that fails is not kept.

        :param known: the digests of those that were there before, which stay.
        """
        from unikeel.engine.unpacking import ensure_unpacked

        if not unpack:
            return
        for image in {image.digest: image for image in images}.values():
            try:
                ensure_unpacked(self._services, image, progress)
            except BaseException:
                if image.digest not in known:
                    self._services.images.remove(image.digest)
                raise

    def remove_image(self, reference: str, *, force: bool = False) -> Image:
        """Take an image's name away; with the last name go its blobs, and its snapshot if no other image has the same layers.

        :param force: also if containers were made of it (they keep working: their snapshots stay).
        :raise NotFound: no such image. :raise FailedPrecondition: containers were made of it.
        """
        from unikeel.engine.unpacking import forget_unused

        found = self._services.images.get(reference)
        users = [item.name for item in self._services.containers.list() if item.image_digest == found.digest]
        names = [image for image in self._services.images.list() if image.digest == found.digest]
        if users and not force and len(names) == 1:
            raise FailedPrecondition(
                f"image {reference} is used by container {', '.join(users[:5])}{' …' if len(users) > 5 else ''}",
                "remove those first, or use --force",
            )
        removed = self._services.images.remove(reference)
        forget_unused(self._services, found)
        return removed

    # -- containers --------------------------------------------------------------------------------------------------

    def create(
        self,
        image: str,
        options: Options | None = None,
        *,
        progress: Progress | None = None,
        timeline: Timeline | None = None,
    ) -> Container:
        """Make a container of an image of the store, with a new writable snapshot. No container is left if this raises.

        :param image: its name or digest; or ``docker-archive:FILE`` or ``oci-archive:FILE``, which is loaded first, and stays in the store.
        :raise NotFound: no such image. :raise AlreadyExists: the name is taken. :raise BadContent: no unikernel image, or a wrong one.
        :raise InvalidArgument: an option is out of range.
        """
        from unikeel.engine.creating import create

        image = self._loaded(image, progress)
        record = create(self._services, image, options or Options(), timeline or Timeline(), progress)
        return Container(self._services, record.id)

    def _loaded(self, reference: str, progress: Progress | None) -> str:
        """The reference; of an archive, after loading it, its one image's digest. :raise InvalidArgument: it has several."""
        prefix = next((prefix for prefix in _ARCHIVES if reference.startswith(prefix)), "")
        if not prefix:
            return reference
        images = {image.digest for image in self.load(reference.removeprefix(prefix), progress=progress)}
        if len(images) != 1:
            raise InvalidArgument(
                f"{reference} has {len(images)} images", "load it with `unikeel image load`, and name one of them"
            )
        return images.pop()

    def container(self, reference: str) -> Container:
        """By id, name, or an unambiguous beginning of an id. :raise NotFound: none or several."""
        return Container(self._services, self._services.containers.get(reference).id)

    def containers(self, *, everything: bool = False) -> list[Container]:
        """Those that run, the oldest first; with ``everything`` all."""
        found = []
        for record in self._services.containers.list():
            container = Container(self._services, record.id)
            try:
                state = container.refresh().state
            except NotFound:
                continue
            if everything or state in (ContainerState.RUNNING, ContainerState.STARTING):
                found.append(container)
        return found

    # -- boot files --------------------------------------------------------------------------------------------------

    def boot_files(self) -> list[Holding]:
        """What the cache, the shared views, the views, the copies and the made disks hold, and for whom."""
        return [*self._services.boot.listing(), *self._services.made.listing()]

    def collect_boot_files(self, *, everything: bool = False) -> list[Freed]:
        """Take away what nobody uses: what is over the cache's bound, or ``everything`` unused; and idle shared views and made disks."""
        return [*self._services.boot.collect(everything=everything), *self._services.made.collect()]

    # -- the end -----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Let go of everything. Containers keep running; one that was to be removed after its run, and has ended, is removed."""
        if self._closed:
            return
        self._closed = True
        try:
            let_go(self._services)
        finally:
            self._services.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
