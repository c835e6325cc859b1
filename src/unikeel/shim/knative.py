"""Knative's proxy beside a guest: told where its guest is, since that is not at the pod's own address as another container would be.

As urunc does it: of the container ``queue-proxy`` the probe in ``SERVING_READINESS_PROBE`` (Knative Serving, its ``queue-proxy``: a probe of Kubernetes' as JSON, or a list of
them) asks the guest, and ``REDIRECT_IP`` names it for a proxy that leads requests there. Whoever gives the pod another network by ``org.unikeel.network`` has
the proxy left alone.
"""

from __future__ import annotations

import json
import os
from typing import Any, Final

from unikeel.errors import InvalidArgument
from unikeel.model.image_fields import OWN_PREFIX
from unikeel.network.static import GUEST
from unikeel.shim import ocispec
from unikeel.shim.ocispec import Spec

_CONTAINER_NAME: Final = "io.kubernetes.cri.container-name"
_PROXY: Final = "queue-proxy"
_PROBE: Final = "SERVING_READINESS_PROBE"
_REDIRECT: Final = "REDIRECT_IP"
_ASKS: Final = ("httpGet", "tcpSocket")


def is_proxy(spec: Spec) -> bool:
    """Whether a container is the proxy of a guest that is behind its pod."""
    asked = spec.annotations.get(OWN_PREFIX + "network", "static")
    return spec.annotations.get(_CONTAINER_NAME) == _PROXY and asked == "static"


def lead(bundle: str) -> None:
    """Have a proxy's configuration lead to the guest. Once more changes nothing.

    :raise NotFound: it is not there. :raise InvalidArgument: it is none, or cannot be written.
    """
    document = ocispec.load(bundle)
    process = document.get("process")
    if not isinstance(process, dict) or not isinstance(process.get("env"), list):
        return
    before = [item for item in process["env"] if isinstance(item, str)]
    after = [_led(item) for item in before if not item.startswith(f"{_REDIRECT}=")] + [f"{_REDIRECT}={GUEST}"]
    if after == before:
        return
    process["env"] = after
    _write(os.path.join(bundle, "config.json"), document)


def _led(variable: str) -> str:
    """A variable as the proxy is to have it; one that is no probe, or none that can be understood, as it is."""
    name, _, value = variable.partition("=")
    if name != _PROBE:
        return variable
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return variable
    for probe in found if isinstance(found, list) else [found]:
        for kind in _ASKS:
            if isinstance(probe, dict) and isinstance(probe.get(kind), dict):
                probe[kind]["host"] = GUEST
    return f"{name}={json.dumps(found, separators=(',', ':'))}"


def _write(path: str, document: dict[str, Any]) -> None:
    """The whole file anew, with the owner and the mode of the one before."""
    new = path + ".new"
    try:
        info = os.lstat(path)
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with open(fd, "w", encoding="utf-8") as file:
            json.dump(document, file)
            os.fchown(fd, info.st_uid, info.st_gid)
            os.fchmod(fd, info.st_mode & 0o777)
        os.replace(new, path)
    except OSError as error:
        raise InvalidArgument(f"{path} cannot be written: {error.strerror}") from None
