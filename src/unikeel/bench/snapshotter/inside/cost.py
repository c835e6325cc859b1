"""``cost``: what some Prepares, one after the other, take beside time, for each of them: bytes written, and processor time.

``metadata_bytes``: written to the pool's metadata device. ``daemon_bytes``: by containerd and, where it is another process, the snapshotter's daemon;
``daemon_cpu``: of the same, with the programs they run. ``daemon``: of our daemon alone.
"""

from __future__ import annotations

from unikeel.bench.reporting import rotated
from unikeel.bench.snapshotter.inside.processes import Used, device_written, listener, metadata_device, used
from unikeel.bench.snapshotter.inside.session import KEPT, LONG, Contender, Session
from unikeel.errors import UnikeelError


async def measure(session: Session) -> None:
    """Some Prepares of each contender in each round."""
    for number in session.request.numbers:
        session.begin_round()
        for contender in rotated(session.request.contenders, number):
            await _round(session, contender)


async def _round(session: Session, contender: Contender) -> None:
    names = [session.name("cost") for _ in range(session.request.many)]
    pids = [listener(address) for address in (session.containerd.address, contender.address) if address]
    device = metadata_device(contender.pool) if contender.pool else ""
    await session.spares_made(contender, len(names))
    try:
        before, on_device = [used(pid) for pid in pids], device_written(device) if device else 0
        for name in names:
            await session.through(contender).prepare(name, contender.parent, KEPT, timeout=LONG)
        spent = [used(pid).since(early) for pid, early in zip(pids, before, strict=True)]
        if device:
            written = (device_written(device) - on_device) / len(names)
            session.sample(session.key("serial", "metadata_bytes", contender, unit="bytes"), written)
        _report(session, contender, "serial", spent, len(names))
        _report(session, contender, "daemon", spent[1:], len(names))
    except UnikeelError as error:
        session.failure([session.key("serial", "daemon_bytes", contender, unit="bytes")], error)
    finally:
        await session.clear(contender, names)


def _report(session: Session, contender: Contender, scenario: str, spent: list[Used], count: int) -> None:
    if not spent:
        return
    cpu, written = sum(each.cpu_ms for each in spent), sum(each.written for each in spent)
    session.sample(session.key(scenario, "daemon_cpu", contender), cpu / count)
    session.sample(session.key(scenario, "daemon_bytes", contender, unit="bytes"), written / count)
