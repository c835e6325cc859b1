"""Coverage-guided fuzzing of what images and users configure with: ``python tests/fuzz/fuzz_configuration.py -runs=50000``.

Needs atheris. The first byte of an input chooses the parser: annotations, ``urunc.json``, an image's description, our configuration file,
a caller's OCI configuration, a volume's name.
Any exception that is not one of ours is a finding, and so is a configuration that does not survive being written and read again.
"""

from __future__ import annotations

import json
import sys
import tempfile

import atheris  # type: ignore[import-untyped]  # it has no type hints

with atheris.instrument_imports(
    include=["unikeel.model", "unikeel.config", "unikeel.images.description", "unikeel.shim.ocispec"]
):
    from unikeel import config
    from unikeel.images import description
    from unikeel.model import image_config, volumes
    from unikeel.model.image_fields import PREFIX
    from unikeel.shim import ocispec

from unikeel.errors import UnikeelError


def given_annotations(data: bytes) -> None:
    """A set of annotations: keys and values in turn, separated by NULs; keys may leave out urunc's prefix."""
    words = data.decode("utf-8", "surrogateescape").split("\0")
    pairs = dict(zip(words[::2], words[1::2], strict=False))
    found = image_config.from_annotations(
        {key if "." in key else PREFIX + key: value for key, value in pairs.items()}, "fuzzed"
    )
    if found is not None:
        assert image_config.from_annotations(image_config.to_annotations(found), "again") == found


def urunc_json(data: bytes) -> None:
    """The bytes of an ``urunc.json``."""
    found = image_config.from_urunc_json(data, "fuzzed")
    assert image_config.from_urunc_json(description.urunc_json(image_config.to_annotations(found)), "again") == found


def image_toml(data: bytes) -> None:
    """An image's description."""
    description.checked(description.parse(data.decode(), "/nowhere", has_tree=True))


def configuration(data: bytes) -> None:
    """Our configuration file."""
    found = config.parse(data, "fuzzed")
    assert config.parse(config.dump(found).encode(), "again") == found


def caller_s(data: bytes) -> None:
    """A caller's OCI configuration. No volume leads out of the guest's root."""
    spec = ocispec.parse(data)
    for volume in (*spec.volumes, *spec.blocks):
        assert volume.target.startswith("/"), volume
        assert volume.target != "/", volume
        assert ".." not in volume.target.split("/"), volume


def volume_s(data: bytes) -> None:
    """What ``-v`` is given."""
    found = volumes.parse(data.decode())
    assert volumes.checked(found) == found


PARSERS = (given_annotations, urunc_json, image_toml, configuration, caller_s, volume_s)
SEEDS = (
    b"\0unikernelType\0linux\0hypervisor\0qemu\0binary\0/boot/kernel\0mountRootfs\0true\0org.unikeel.rootfs\0block",
    b"\0unikernelType\0bGludXg=\0hypervisor\0cWVtdQ==\0binary\0L2Jvb3Qva2VybmVs",
    b"\1"
    + json.dumps(
        {"com.urunc.unikernel.unikernelType": "bGludXg=", "com.urunc.unikernel.hypervisor": "cWVtdQ=="}
    ).encode(),
    b'\2name = "a:b"\ntype = "generic"\nkernel = "/k"\n[files]\n"/k" = "k"\n[[layers]]\ntree = "t"\n',
    b'\3root = "/srv"\n[boot]\ncache_size = "1GiB"\n[network]\naddress = "10.1.2.3/24"\ngateway = "10.1.2.1"\n',
    b"\4"
    + json.dumps(
        {
            "annotations": {"org.unikeel.memory": "64MiB"},
            "process": {"args": ["a"], "env": ["A=1"], "user": {"uid": 1, "additionalGids": [2]}},
            "mounts": [{"destination": "/a", "type": "bind", "source": "/b", "options": ["ro"]}],
            "linux": {
                "cgroupsPath": "a.slice:b:c",
                "namespaces": [{"type": "network", "path": "/n"}],
                "devices": [{"path": "/dev/x", "type": "b", "major": 7, "minor": 1}],
                "resources": {
                    "memory": {"limit": 1},
                    "devices": [{"allow": True, "type": "b", "major": 7, "access": "rw"}],
                },
            },
        }
    ).encode(),
    b"\5/a:/b:disk,ro",
)


def one_input(data: bytes) -> None:
    """One input to its parser."""
    if not data:
        return
    try:
        PARSERS[data[0] % len(PARSERS)](data[1:])
    except (UnikeelError, UnicodeDecodeError):
        return


def main() -> None:
    """Fuzz from the seeds, as long as libFuzzer's options say."""
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(SEEDS):
            with open(f"{corpus}/{number}", "wb") as file:
                file.write(seed)
        atheris.Setup([*sys.argv, corpus], one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
