"""Carrying a repair out, after its plan was shown and agreed to. Nobody else uses the pool meanwhile; every step may be repeated after a kill."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from contextlib import suppress

from unikeel.errors import BadContent, Unavailable
from unikeel.kernel.paths import find_program
from unikeel.lean import Final
from unikeel.records.failpoint import failpoint
from unikeel.snapshots.image_files import translated
from unikeel.snapshots.pools.checking import Does, Report, Step, examine
from unikeel.snapshots.pools.contents import contents_of
from unikeel.snapshots.pools.definition import Pool
from unikeel.snapshots.pools.examining import IsDead, Open, evidence
from unikeel.snapshots.pools.registry import Registry
from unikeel.snapshots.pools.thin_metadata import MetadataDevice
from unikeel.snapshots.pools.thin_pool import ThinPool
from unikeel.snapshots.thin.reference import IDENTITY_ID

_SECONDS: Final = 3600
_CHUNK: Final = 1 << 20
_SECTOR: Final = 512


def check(registry: Registry, name: str, catalog: Open, is_dead: IsDead) -> Report:
    """What is wrong with a pool. :raise NotFound: there is none."""
    pool = registry.find(name)
    return examine(pool, evidence(registry, pool, catalog, is_dead))


def repair(
    registry: Registry,
    name: str,
    catalog: Open,
    is_dead: IsDead,
    agree: Callable[[Report], bool],
    done: Callable[[Step], None],
) -> Report:
    """Check a pool with nobody else using it, and carry out what ``agree`` was shown and agreed to; the report of that.

    :param done: is told of each step when it is done. :raise FailedPrecondition: somebody uses the pool.
    """
    with registry.alone(name):
        pool = registry.find(name)
        report = examine(pool, evidence(registry, pool, catalog, is_dead))
        if not report.steps or not agree(report):
            return report
        for step in report.steps:
            _carry_out(registry, pool, catalog, step)
            failpoint(f"pools.repair.{step.does.value}")
            done(step)
        return report


def _carry_out(registry: Registry, pool: Pool, catalog: Open, step: Step) -> None:
    with registry.activating(pool.name):
        if step.does is Does.CHECK_METADATA:
            check_metadata(ThinPool(registry, pool))
        elif step.does is Does.FORGET:
            catalog().forget_ids(pool.store, step.ids)
        else:
            contents = contents_of(registry, pool)
            try:
                if step.does is Does.TIE:
                    catalog().tie(pool.store, contents.tie())
                else:
                    for number in step.ids:
                        contents.delete(number)
            finally:
                contents.close()


def check_metadata(pool: ThinPool) -> None:
    """Take the pool down, have its metadata checked, and repaired if need be, and activate it again.

    The damaged metadata is kept beside the pool's definition, and the rebuilt written there and checked, before it takes the place of the damaged.

    :raise Unavailable: the programs are missing, or cannot repair it; it is as it was. :raise FailedPrecondition: the pool is in use.
    """
    pool.deactivate()
    failpoint("pools.repair.inactive")
    if _run("thin_check", "--clear-needs-check-flag", pool.metadata):
        _rebuild(pool)
    pool.activate()


def _rebuild(pool: ThinPool) -> None:
    damaged, new = pool.beside("metadata.damaged"), pool.beside("metadata.repaired")
    with translated(f"keep {pool.metadata} before it is repaired"):
        # One that is there is from a repair that was killed while it overwrote the metadata.
        if not os.path.exists(damaged):
            _copy(pool.metadata, damaged + ".new")
            os.rename(damaged + ".new", damaged)
        with open(damaged, "rb") as kept, open(new, "wb") as file:
            file.truncate(os.fstat(kept.fileno()).st_size)
    failpoint("pools.repair.kept")
    problem = _rebuilt(pool, damaged, new)
    if problem:
        os.unlink(new)
        raise Unavailable(
            f"the metadata of pool {pool.pool.name!r} cannot be repaired: {problem}",
            f"it is as it was; a copy is {damaged}",
        )
    with translated(f"replace {pool.metadata}"):
        _copy(new, pool.metadata)
        failpoint("pools.repair.replaced")
        os.rename(damaged, pool.beside("metadata.before-repair"))
        os.unlink(new)


def _rebuilt(pool: ThinPool, damaged: str, new: str) -> str:
    """Write new metadata into a file of the damaged one's size; why that cannot be done, or empty.

    From what the superblock leads to, if that is whole: then only the counts of what is in use were damaged. Otherwise from whatever thin_repair finds.
    """
    dump = pool.beside("metadata.xml")
    try:
        if not _run("thin_dump", "-o", dump, damaged) and not _run("thin_restore", "-i", dump, "-o", new):
            return _wrong(new)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(dump)
    # What a damaged superblock does not tell any more.
    known = {
        "--data-block-size": pool.pool.block_size // _SECTOR,
        "--nr-data-blocks": pool.data_blocks(),
        "--transaction-id": 0,
    }
    words = [word for option, value in known.items() for word in (option, str(value))]
    return _run("thin_repair", "-i", damaged, "-o", new, *words) or _wrong(new)


def _wrong(new: str) -> str:
    """What is wrong with rebuilt metadata; empty: nothing."""
    if problem := _run("thin_check", new):
        return problem
    with MetadataDevice(new) as device:
        return "" if IDENTITY_ID in device.resting_devices() else "what is left does not have the pool's identity"


def _copy(source: str, target: str) -> None:
    """Copy metadata, durably; holes of a file stay such."""
    with open(source, "rb") as reading, open(target, "r+b" if os.path.exists(target) else "xb") as writing:
        size = reading.seek(0, os.SEEK_END)
        at = 0
        while at < size:
            data = os.pread(reading.fileno(), _CHUNK, at)
            if not data:
                raise BadContent(f"{source} became shorter while it was copied")
            os.pwrite(writing.fileno(), data, at)
            at += len(data)
        os.fsync(writing.fileno())


def _run(name: str, *words: str) -> str:
    """Run a program of thin-provisioning-tools; what it says if it fails, else nothing. :raise Unavailable: it is not installed."""
    program = find_program(name)
    if not program:
        raise Unavailable(f"{name} is not installed", "install thin-provisioning-tools")
    done = subprocess.run(
        [program, *words],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_SECONDS,
        env={"LC_ALL": "C"},
    )
    text = " ".join((done.stderr + done.stdout).decode(errors="replace").split())[:300]
    return (text or f"{name} ended with {done.returncode}") if done.returncode else ""
