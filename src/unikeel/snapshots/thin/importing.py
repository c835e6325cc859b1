"""A committed snapshot without a parent: a new device, and on it what somebody writes to a file."""

from __future__ import annotations

import os
from collections.abc import Callable

from unikeel.kernel import block
from unikeel.records.failpoint import failpoint
from unikeel.snapshots.contract import How, Usage
from unikeel.snapshots.metadata import Metadata
from unikeel.snapshots.rows import Record
from unikeel.snapshots.thin.devices import ThinDevices
from unikeel.snapshots.thin.filling import copy_onto, filled_file


def fill_device(
    devices: ThinDevices, metadata: Metadata, record: Record, directory: str, fill: Callable[[int], object]
) -> Record:
    """Make the device of an announced record and the record ready; the record as it is then. Who calls undoes what fails.

    :param directory: where there is room for a file of what ``fill`` writes.
    """
    with filled_file(directory, fill) as (source, size):
        devices.create(record.id)
        failpoint("thin.import.made")
        devices.show_new(record.id, size)
        target = devices.opened_alone(record.id)
        try:
            copy_onto(source, target)
            failpoint("thin.import.filled")
            block.set_read_only(target, on=True)
        finally:
            os.close(target)
    mapped = devices.mapped(record.id)
    used = Usage(mapped, 1)
    metadata.finish(record, How.FILLED, size, used, mapped=mapped)
    failpoint("thin.import.done")
    return record._replace(ready=True, how=How.FILLED, virtual_size=size, used=used, mapped=mapped)
