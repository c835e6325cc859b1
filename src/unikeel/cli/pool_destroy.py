"""``unikeel pool destroy``: take pools away."""

from __future__ import annotations

from unikeel.cli.options import POOLS, Argument, Command, Option, Parsed
from unikeel.cli.output import for_each, line
from unikeel.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from unikeel.cli.session import Session
    from unikeel.snapshots.pools.definition import Pool

COMMAND = Command(
    "pool destroy",
    "take pools away; devices can be used for something else then",
    options=(Option(("-f", "--force"), "also with snapshots in it, which are lost"),),
    arguments=(Argument("POOL", "the pool", 1, None, POOLS),),
    examples=(("unikeel pool destroy trial", "one that holds nothing any more"),),
    details="A pool that a daemon, a container or a mount uses is never taken away.",
)


def run(parsed: Parsed, session: Session) -> int:
    """Take each away."""
    from unikeel.cli.pooling import pools
    from unikeel.snapshots.pools.lifecycle import check_empty, destroy

    force = parsed.flag("force")
    with pools(session) as found:

        def check(pool: Pool) -> None:
            if not force:
                check_empty(pool, [entry.info.name for entry in found.catalog().entries(store=pool.store)])

        def one(name: str) -> None:
            destroy(found.registry, name, check, found.forget)
            line(name)

        return for_each(parsed.operands, one)
