"""Asking a monitor for its state, for its guest's power button and for its own end, whatever it is talked to by.

Each call is one short conversation, bounded in time. What cannot be asked of a monitor raises, and its caller goes on to a signal.
"""

from __future__ import annotations

import os

from unikeel.errors import Unimplemented
from unikeel.model.plan import Control
from unikeel.sandbox.lines import Line


def status(control: Control, directory: str, seconds: float) -> str:
    """``running`` once the guest's processor runs; of a monitor that does not tell, at once.

    :raise DeadlineExceeded: no answer in time. :raise Unavailable: it is gone, or says an error.
    """
    if control is Control.QMP:
        from unikeel.sandbox import qmp

        return qmp.status(os.path.join(directory, "qmp.sock"), seconds)
    if control is Control.HTTP:
        from unikeel.sandbox import http_api

        return http_api.status(os.path.join(directory, "api.sock"), seconds)
    return "running"


def power_down(line: Line, seconds: float) -> None:
    """Press the guest's power button. :raise Unimplemented: there is none. Others as :func:`status`."""
    if line.control is Control.QMP:
        from unikeel.sandbox import qmp

        qmp.power_down(os.path.join(line.directory, "qmp.sock"), seconds)
    elif line.control is Control.HTTP:
        from unikeel.sandbox import http_api

        http_api.power_down(os.path.join(line.directory, "api.sock"), seconds)
    elif line.control is Control.MCONSOLE:
        from unikeel.sandbox import mconsole

        mconsole.request(line, "cad", seconds)
    else:
        raise Unimplemented("this monitor has no power button")


def end(line: Line, seconds: float) -> None:
    """Have the monitor end, whatever its guest does. :raise Unimplemented: it can only be killed. Others as :func:`status`."""
    if line.control is Control.QMP:
        from unikeel.sandbox import qmp

        qmp.quit_monitor(os.path.join(line.directory, "qmp.sock"), seconds)
    elif line.control is Control.HTTP:
        from unikeel.sandbox import http_api

        http_api.quit_monitor(os.path.join(line.directory, "api.sock"), seconds)
    else:
        raise Unimplemented("this monitor cannot be asked to end")
