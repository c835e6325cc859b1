"""What the keeper hands on to the daemon's interpreter: nothing that somebody else would have it do."""

from __future__ import annotations

import pytest

from unikeel.keeper.supervisor import daemon_environment


def test_only_what_is_meant_for_the_daemon_is_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTHONPATH", "PYTHONMALLOC", "GLIBC_TUNABLES", "LD_PRELOAD"):
        monkeypatch.setenv(name, "elsewhere")
    monkeypatch.setenv("UNIKEEL_LOG", "x")
    found = daemon_environment()
    assert found["UNIKEEL_LOG"] == "x"
    assert {"PYTHONPATH", "PYTHONMALLOC", "GLIBC_TUNABLES", "LD_PRELOAD"}.isdisjoint(found)
