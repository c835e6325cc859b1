"""The containers' records: a state machine that any sequence of commands keeps to; and owners, dead or alive."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from unikeel.engine.containers import Container, Containers, NewContainer, check_name
from unikeel.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted
from unikeel.model.states import TRANSITIONS, ContainerState
from unikeel.records import owners
from unikeel.records.database import Database
from unikeel.records.intents import Intents
from unikeel.records.owners import Owner

_SLOTS = 4
_STATES = st.sampled_from(ContainerState)


def _new(name: str = "") -> NewContainer:
    return NewContainer(name, "image", "sha256:1", "sha256:2", {"a": [1]}, auto_remove=False)


class Records(RuleBasedStateMachine):
    """Two commands on the same records, against a model in memory."""

    containers: Bundle[Container] = Bundle("containers")

    def __init__(self) -> None:
        super().__init__()
        self._directory = tempfile.TemporaryDirectory()
        path = os.path.join(self._directory.name, "state.db")
        self._databases = [Database(path), Database(path)]
        self._records = [Containers(database, f"owner{n}", _SLOTS) for n, database in enumerate(self._databases)]
        self._model: dict[str, ContainerState] = {}

    @rule(target=containers, who=st.integers(0, 1), name=st.sampled_from(["", "a", "b"]))
    def add(self, who: int, name: str) -> Container:
        names = {container.name for container in self._records[0].list()}
        try:
            container = self._records[who].add(_new(name))
        except AlreadyExists:
            assert name in names
            return self._records[who].get(name)
        except ResourceExhausted:
            assert len(self._model) == _SLOTS
            return Container(*(["gone", "gone"] + [None] * 18))  # type: ignore[arg-type]  # stands for one that is not there
        assert container.owner == f"owner{who}"
        self._model[container.id] = container.state
        return container

    @rule(who=st.integers(0, 1), container=containers, state=_STATES)
    def move(self, who: int, container: Container, state: ContainerState) -> None:
        before = self._model.get(container.id)
        try:
            moved = self._records[who].move(container, state, owner="x")
        except NotFound:
            assert before is None
        except FailedPrecondition:
            assert before is not None
            assert state not in TRANSITIONS[before]
        else:
            assert before is not None
            assert state in TRANSITIONS[before]
            assert (moved.state, moved.owner) == (state, "x")
            self._model[container.id] = state

    @rule(who=st.integers(0, 1), container=consumes(containers))
    def delete(self, who: int, container: Container) -> None:
        self._records[who].delete(container.id)
        self._model.pop(container.id, None)
        with pytest.raises(NotFound):
            self._records[1 - who].get(container.id)

    @invariant()
    def both_see_the_model(self) -> None:
        for records in self._records:
            listed = records.list()
            assert {container.id: container.state for container in listed} == self._model
            assert len({container.slot for container in listed}) == len(listed)
            assert all(0 <= container.slot < _SLOTS for container in listed)

    def teardown(self) -> None:
        for database in self._databases:
            database.close()
        self._directory.cleanup()


TestRecords = Records.TestCase
TestRecords.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)


def test_every_state_has_a_way_out_but_removing() -> None:
    assert set(TRANSITIONS) == set(ContainerState)
    assert [state for state, after in TRANSITIONS.items() if not after] == [ContainerState.REMOVING]


@pytest.mark.parametrize("name", ["a", "A.b_c-9", "0", "x" * 64])
def test_names(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize("name", ["", "-a", ".a", "a b", "a/b", "ä", "x" * 65, "a\n"])
def test_wrong_names(name: str) -> None:
    with pytest.raises(InvalidArgument):
        check_name(name)


@pytest.fixture
def directory(tmp_path: os.PathLike[str]) -> str:
    return str(tmp_path)


def test_looking_up(directory: str) -> None:
    database = Database(os.path.join(directory, "state.db"))
    records = Containers(database, "me", 100)
    first, second = records.add(_new("web")), records.add(_new())
    assert records.get("web").id == records.get(first.id).id == records.get(first.id[:6]).id
    assert second.name == second.id
    assert [container.id for container in records.owned("me")] == [first.id, second.id]
    assert records.owned("you") == []
    with pytest.raises(NotFound):
        records.get("we")
    records.update(first.id, owner="you", reason="because")
    assert records.get("web").reason == "because"
    assert [container.id for container in records.owned("you")] == [first.id]
    database.close()


_HOLDER = """\
import sys
from unikeel.records.owners import Owner
owner = Owner(sys.argv[1])
print(owner.token, flush=True)
if sys.stdin.readline() == "close\\n":
    owner.close()
"""


def _holder(directory: str) -> tuple[subprocess.Popen[str], str]:
    child = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, directory], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    return child, child.stdout.readline().strip()


def test_owners(directory: str) -> None:
    with Owner(directory) as mine:
        assert not mine.is_dead(mine.token)
        child, token = _holder(directory)
        assert not mine.is_dead(token)
        assert not owners.was_killed(directory, token)
        owners.sweep(directory)
        child.kill()
        child.communicate()
        assert mine.is_dead(token)
        assert owners.was_killed(directory, token)
        owners.sweep(directory)
        assert mine.is_dead(token)
        assert not owners.was_killed(directory, token)
        other, token = _holder(directory)
        other.communicate("close\n")
        assert mine.is_dead(token)
        assert not owners.was_killed(directory, token)
        assert not owners.was_killed(directory, "")
        assert os.listdir(directory) == [mine.token + owners.SUFFIX]
    assert os.listdir(directory) == []


def test_intents_of_the_dead_come_newest_first(directory: str) -> None:
    os.mkdir(os.path.join(directory, "owners"))
    database = Database(os.path.join(directory, "state.db"))
    dead = Owner(os.path.join(directory, "owners"))
    intents = Intents(database, dead)
    numbers = [intents.begin("kind", f"subject{n}", path=str(n)) for n in range(3)]
    intents.done(numbers[1])
    with Owner(os.path.join(directory, "owners")) as mine:
        seen = Intents(database, mine)
        assert seen.abandoned() == []
        dead.close()
        abandoned = seen.abandoned()
        assert [(intent.subject, intent.detail) for intent in abandoned] == [
            ("subject2", {"path": "2"}),
            ("subject0", {"path": "0"}),
        ]
        for intent in abandoned:
            seen.done(intent.number)
        assert seen.abandoned() == []
    database.close()
