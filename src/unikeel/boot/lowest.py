"""The lowest layer that has the boot files: the first committed snapshot, from below, in which they are what they are in the parent.

Where :class:`~unikeel.boot.contract.Layers` can tell from the layers' own contents, that is asked; else the files are read and
compared in one snapshot after the other. What was found is remembered with the parent.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence

from unikeel.boot.contract import FILL, Layers, Parent, Reach, Timeline, Wanted
from unikeel.boot.reached import LowestRow, lowest_of, put_lowest
from unikeel.boot.reaching import reach
from unikeel.boot.sources import open_mounted
from unikeel.boot.spans import span
from unikeel.errors import BadContent, Unavailable, UnikeelError
from unikeel.lean import TYPE_CHECKING
from unikeel.records.database import Database

if TYPE_CHECKING:
    from unikeel.boot.mounted import Mounter

_CHUNK = 1 << 20

#: How it was found: remembered, by the layers' contents, by comparing files; or it was not.
REMEMBERED, CONTENTS, COMPARED = "remembered", "layers", "compared"


class Lowest:
    """Finds it. :param mounter: makes what mounts snapshots, when one has to be compared."""

    def __init__(self, layers: Layers, way: Reach, database: Database, mounter: Callable[[], Mounter]) -> None:
        self._layers = layers
        self._way = way
        self._database = database
        self._mounter = mounter

    def find(self, parent: Parent, wanted: Sequence[Wanted], timeline: Timeline) -> Parent:
        """The lowest parent that has all of the files, or the parent itself. The timeline tells which and how (``boot.layer``).

        :raise BadContent: the parent itself does not have them. :raise Unavailable: it cannot be looked into.
        """
        paths = sorted({want.path for want in wanted})
        with span(timeline, "boot.layer", parent=parent.name) as attributes:
            row = lowest_of(self._database, parent, paths)
            if row is not None:
                attributes.update(layer=row.name, how=REMEMBERED, found=row.how)
                return parent._replace(name=row.name, created_ns=row.created_ns)
            chain = self._layers.chain(parent)
            number, how = self._search(chain, wanted, paths)
            found = chain[number]
            attributes.update(layer=found.name, how=how, number=number + 1, layers=len(chain))
            put_lowest(self._database, parent, paths, LowestRow(found.name, found.created_ns, how))
        return found

    def _search(self, chain: Sequence[Parent], wanted: Sequence[Wanted], paths: Sequence[str]) -> tuple[int, str]:
        if len(chain) == 1:
            return 0, CONTENTS
        try:
            number = self._layers.final_layer(chain[-1], paths)
        except UnikeelError:
            number = None
        if number is not None:
            return min(number, len(chain) - 1), CONTENTS
        final = self._digests(chain[-1], wanted)
        for candidate in range(len(chain) - 1):
            try:
                if self._digests(chain[candidate], wanted) == final:
                    return candidate, COMPARED
            except BadContent:
                continue  # one is missing yet, or something else
        return len(chain) - 1, COMPARED

    def _digests(self, parent: Parent, wanted: Sequence[Wanted]) -> dict[str, tuple[int, int, int, str]]:
        """Mode, owner and digest of each file."""
        if not parent.trusted:
            raise Unavailable(f"{parent.name} is not made of the image's own layers, so the host must not mount it")
        found = {}
        with reach(self._way, parent, FILL) as reached, self._mounter().mount(reached.mounts) as mount:
            for want in wanted:
                with open_mounted(mount.fileno(), want) as fd, open(os.dup(fd.fileno()), "rb", buffering=0) as file:
                    info, digest = os.fstat(fd.fileno()), hashlib.sha256()
                    while piece := file.read(_CHUNK):
                        digest.update(piece)
                    found[want.path] = (info.st_mode, info.st_uid, info.st_gid, digest.hexdigest())
        return found
