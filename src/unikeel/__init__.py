"""unikeel runs unikernels and microVMs as containers, booted straight from block snapshots.

The public API is what this module names::

    import unikeel

    with unikeel.Engine() as engine:
        engine.load("hello.tar")
        container = engine.create("hello", unikeel.Options(args=("hello", "exit=3")))
        container.start(ready="first-output")
        code = container.wait()
        container.remove()

Everything is loaded on first use, so that ``import unikeel`` costs nothing by itself. Errors are :class:`UnikeelError` and its kinds in
:mod:`unikeel.errors`.
"""

from __future__ import annotations

from unikeel.lean import TYPE_CHECKING
from unikeel.version import VERSION

if TYPE_CHECKING:
    from unikeel.engine.engine import Engine
    from unikeel.engine.handle import Container
    from unikeel.engine.settings import Options
    from unikeel.engine.timeline import Span, Timeline
    from unikeel.errors import UnikeelError
    from unikeel.images.manifests import Image
    from unikeel.model.states import ContainerState
    from unikeel.network.ports import Port
    from unikeel.network.ports import parse as port

__version__ = VERSION

__all__ = [
    "Container",
    "ContainerState",
    "Engine",
    "Image",
    "Options",
    "Port",
    "Span",
    "Timeline",
    "UnikeelError",
    "__version__",
    "port",
]

_HOMES = {
    "Container": "engine.handle",
    "ContainerState": "model.states",
    "Engine": "engine.engine",
    "Image": "images.manifests",
    "Options": "engine.settings",
    "Port": "network.ports",
    "Span": "engine.timeline",
    "Timeline": "engine.timeline",
    "UnikeelError": "errors",
}


def __getattr__(name: str) -> object:
    if name != "port" and name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # which no command needs: each asks here for modules of the package first

    if name == "port":
        return import_module("unikeel.network.ports").parse
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
