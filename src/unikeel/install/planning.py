"""From what is there and what is wanted to the changes that lead from one to the other, and back."""

from __future__ import annotations

import os

from unikeel.errors import UnikeelError
from unikeel.install import texts, toml_edit
from unikeel.install.changes import Change, backup_path, current, digest
from unikeel.install.record import BLOCK, DIRECTORY, FILE, IMPORT, LINK, Entry
from unikeel.install.situation import Situation, check_free, check_free_snapshotter, covers, says_what_to_unpack
from unikeel.shim.launcher import PROGRAM
from unikeel.values import NamedTuple


class Wishes(NamedTuple):
    """What is to be installed. ``command`` is our own, by which the daemon is started; ``options`` are given to it. ``snapshots``: where the daemon serves
    snapshots, if ``snapshotter`` is our own."""

    launcher: bytes
    command: str
    bin_dir: str = "/usr/local/bin"
    handler: str = texts.HANDLER
    snapshotter: str = ""
    unit_dir: str = ""
    link_command: bool = False
    options: tuple[str, ...] = ()
    snapshots: str = texts.SNAPSHOT_SOCKET

    @property
    def serves_snapshots(self) -> bool:
        """Whether the snapshotter is our own."""
        return self.snapshotter == texts.SNAPSHOTTER


class Planned(NamedTuple):
    """A change, and what the record is to say of it (``None``: nothing, the file was as wanted and is not ours)."""

    change: Change
    entry: Entry | None


class Plan(NamedTuple):
    """``left`` are sentences on what stays as it is, and why; ``kept`` the entries that stay in the record, ``directories`` those to make or take away."""

    steps: tuple[Planned, ...]
    kept: tuple[Entry, ...] = ()
    left: tuple[str, ...] = ()
    directories: tuple[str, ...] = ()
    backups: tuple[str, ...] = ()

    @property
    def changes(self) -> tuple[Change, ...]:
        """Those that change something."""
        return tuple(step.change for step in self.steps if step.change.action != "keep")


def install(wishes: Wishes, situation: Situation, entries: tuple[Entry, ...]) -> Plan:
    """All that is wanted and not there yet; containerd's own file last, because it names the others.

    :raise UnikeelError: the configuration does not let us.
    """
    known = {entry.path: entry for entry in entries}
    steps = [_file(os.path.join(wishes.bin_dir, PROGRAM), wishes.launcher, known, 0o755)]
    if wishes.link_command:
        steps.append(_link(os.path.join(wishes.bin_dir, "unikeel"), wishes.command, known))
    if wishes.unit_dir:
        units = {
            "unikeel.socket": texts.socket_unit(),
            "unikeel.service": texts.service_unit(wishes.command, wishes.options, snapshots=wishes.serves_snapshots),
        }
        if wishes.serves_snapshots:
            units["unikeel-snapshots.socket"] = texts.snapshots_unit(wishes.snapshots)
        steps += [_file(os.path.join(wishes.unit_dir, name), text.encode(), known) for name, text in units.items()]
    check_free(situation, wishes.handler)
    if wishes.serves_snapshots:
        check_free_snapshotter(situation, texts.SNAPSHOTTER)
    if situation.block:
        steps.append(_block(wishes, situation, known))
    else:
        text = texts.drop_in(situation.version, wishes.handler, wishes.snapshotter, _proxy(wishes, situation))
        steps += [_file(situation.drop_in, text.encode(), known), _import(situation, known)]
    return Plan(tuple(steps), entries, directories=_missing([step.change.path for step in steps]))


def _missing(paths: list[str]) -> tuple[str, ...]:
    """The directories that these files need and that are not there, outermost first."""
    missing: dict[str, None] = {}
    for path in paths:
        chain = []
        parent = os.path.dirname(path)
        while parent and not os.path.isdir(parent) and parent != os.path.dirname(parent):
            chain.append(parent)
            parent = os.path.dirname(parent)
        missing.update(dict.fromkeys(reversed(chain)))
    return tuple(missing)


def _file(path: str, data: bytes, known: dict[str, Entry], mode: int = 0o644) -> Planned:
    before = current(path)
    return _planned(Change(path, before, data, mode), FILE, known)


def _link(path: str, target: str, known: dict[str, Entry]) -> Planned:
    return _planned(Change(path, current(path, link=True), os.fsencode(target), link=True), LINK, known, target)


def _block(wishes: Wishes, situation: Situation, known: dict[str, Entry]) -> Planned:
    text = _versioned(situation)
    proxy = _proxy(wishes, situation)
    block = texts.block(situation.version, wishes.handler, wishes.snapshotter, proxy, images=_is_second(situation))
    return _edit(situation, toml_edit.with_block(text, block, situation.config), BLOCK, known)


def _is_second(situation: Situation) -> bool:
    """Whether it is a containerd of 2.x."""
    return situation.version > 2 or (situation.containerd or (1, 0))[0] >= 2


def _proxy(wishes: Wishes, situation: Situation) -> str:
    """The tables of our own snapshotter; empty if it is another one. What the configuration itself says of unpacking is not replaced."""
    if not wishes.serves_snapshots:
        return ""
    return texts.proxy_table(wishes.snapshots, transfer=_is_second(situation) and not says_what_to_unpack(situation))


def _import(situation: Situation, known: dict[str, Entry]) -> Planned:
    text = _versioned(situation)
    imports = toml_edit.imports_of(situation.document, situation.config)
    if not covers(imports, situation.config, situation.drop_in):
        text = toml_edit.with_import(text, situation.drop_in, situation.config)
    return _edit(situation, text, IMPORT, known, situation.drop_in)


def _versioned(situation: Situation) -> str:
    """The main file's text, naming the version that what we write is of."""
    text = situation.text or ""
    return (
        text if "version" in situation.document else toml_edit.with_version(text, situation.version, situation.config)
    )


def _edit(situation: Situation, text: str, kind: str, known: dict[str, Entry], detail: str = "") -> Planned:
    before = None if situation.text is None else situation.text.encode()
    return _planned(Change(situation.config, before, text.encode(), edit=True), kind, known, detail)


def _planned(change: Change, kind: str, known: dict[str, Entry], detail: str = "") -> Planned:
    """With its entry: the backup of an earlier installation stays the backup; a file that is as wanted, but not by us, gets none."""
    assert change.after is not None
    old = known.get(change.path)
    if change.action == "keep":
        return Planned(change, old and old._replace(digest=digest(change.after)))
    ours = old is not None and change.before is not None and old.digest == digest(change.before)
    backup = old.backup if old is not None and old.backup else "" if ours else backup_path(change)
    created = "yes" if change.before is None or (old is not None and old.created) else ""
    return Planned(change, Entry(change.path, kind, digest(change.after), backup, detail, created))


def uninstall(entries: tuple[Entry, ...]) -> Plan:
    """Take back what the record says, in reverse order; what somebody has changed since is left, and named."""
    steps: list[Planned] = []
    left: list[str] = []
    kept: list[Entry] = []
    imported: set[str] = set()
    for entry in reversed(entries):
        if entry.kind == DIRECTORY:
            continue
        if entry.path in imported:
            left.append(f"{entry.path} stays, because containerd's configuration still imports it")
            kept.append(entry)
            continue
        try:
            step = _undone(entry)
        except UnikeelError as error:
            left.append(f"{entry.path} is left: {error.message}")
            kept.append(entry)
            imported.update({entry.detail} if entry.kind == IMPORT else ())
            continue
        if step is None:
            left.append(f"{entry.path} was changed by somebody since we wrote it, and is left")
            kept.append(entry)
        else:
            steps.append(Planned(step, entry))
    directories = tuple(entry.path for entry in reversed(entries) if entry.kind == DIRECTORY)
    backups = tuple(entry.backup for entry in entries if entry.backup and entry not in kept)
    return Plan(tuple(steps), tuple(reversed(kept)), tuple(left), directories, backups)


def _undone(entry: Entry) -> Change | None:
    """How one thing is taken back; ``None``: it is not what we wrote any more. :raise UnikeelError: an edit cannot be taken out safely."""
    link = entry.kind == LINK
    before = current(entry.path, link=link)
    original = current(entry.backup) if entry.backup else None
    if before is None or before == original:
        return Change(entry.path, before, before, link=link)
    if entry.kind in (IMPORT, BLOCK):
        return _taken_out(entry, before)
    if digest(before) != entry.digest:
        return None
    mode = os.stat(entry.backup).st_mode & 0o7777 if original is not None else 0o644
    return Change(entry.path, before, original, mode, link)


def _taken_out(entry: Entry, before: bytes) -> Change:
    """The edited file without what we put in; nothing is left of one that we made."""
    text = before.decode()
    if entry.kind == BLOCK:
        text = toml_edit.without_block(text, entry.path)
    else:
        text = toml_edit.without_import(text, entry.detail, entry.path)
    text = toml_edit.without_version(text, entry.path)
    after = None if not text and entry.created else text.encode()
    return Change(entry.path, before, after, edit=True)


def dangling(unit_dir: str, changes: tuple[Change, ...]) -> tuple[Change, ...]:
    """The links by which systemd has our units enabled, once the units are to go."""
    found = []
    for change in changes:
        name = os.path.basename(change.path)
        if change.action != "remove" or not name.startswith("unikeel.") or os.path.dirname(change.path) != unit_dir:
            continue
        for target in ("sockets.target.wants", "multi-user.target.wants"):
            path = os.path.join(unit_dir, target, name)
            if os.path.islink(path) and os.readlink(path) == change.path:
                found.append(Change(path, os.fsencode(change.path), None, link=True))
    return tuple(found)
