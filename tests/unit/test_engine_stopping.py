"""The polite way of stopping: a power button that is pressed until the guest heeds it."""

from __future__ import annotations

from typing import Any, cast

import pytest

from unikeel.engine import stopping
from unikeel.engine.containers import Container
from unikeel.engine.services import Services
from unikeel.model.plan import Control
from unikeel.sandbox.lines import Line

LINE = Line(Control.QMP, "")


@pytest.mark.parametrize("heeded", [1, 3])
def test_the_button_is_pressed_until_it_is_heeded(monkeypatch: pytest.MonkeyPatch, heeded: int) -> None:
    presses = [True]

    def ask(_line: Line, *, politely: bool) -> bool:
        presses.append(politely)
        return True

    monkeypatch.setattr(stopping, "_ask", ask)
    waits: list[float | None] = []

    def wait(_services: Services, _container: Container, seconds: float | None) -> bool:
        waits.append(seconds)
        return len(presses) == heeded

    nobody = cast("Any", None)
    assert stopping._powers_off(nobody, nobody, LINE, 60.0, wait)
    assert presses == [True] * heeded
    assert all(seconds is not None and 0 < seconds <= 2.0 for seconds in waits)


def test_no_time_is_no_power_off() -> None:
    nobody = cast("Any", None)
    assert not stopping._powers_off(nobody, nobody, LINE, 0.0, lambda *_: True)
