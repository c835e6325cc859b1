"""Coverage-guided fuzzing of what names networks, addresses and ports: ``python tests/fuzz/fuzz_network.py -runs=50000``.

Needs atheris. The first byte of an input chooses the parser: CNI's configurations, plugins' answers, published and forwarded ports, ``resolv.conf``, the
kernel's messages. Any exception that is not one of ours is a finding, and so is a port that is read differently when written again.
"""

from __future__ import annotations

import json
import sys
import tempfile

import atheris  # type: ignore[import-untyped]  # it has no type hints

with atheris.instrument_imports(include=["unikeel.network", "unikeel.kernel.netlink"]):
    from unikeel.kernel import netlink
    from unikeel.network import conflist, joined, ports

from unikeel.errors import UnikeelError

_SUBJECT = (ports.Port("", 8080, 80, "tcp"),)


def configuration(data: bytes) -> None:
    """A network's configuration, and what its plugins are told."""
    network = conflist.parse(data.decode(), "fuzzed")
    for plugin in network.plugins:
        told = json.loads(conflist.derived(network, plugin, {}, _SUBJECT))
        assert (told["name"], told["cniVersion"]) == (network.name, network.version)


def answer(data: bytes) -> None:
    """What a plugin says, in either case."""
    assert "\n" not in conflist.complaint(data)
    conflist.name_server(conflist.result(data, "fuzzed"))


def published(data: bytes) -> None:
    """The value of ``-p``."""
    port = ports.parse(data.decode())
    assert ports.parse(f"{port.address}{':' * bool(port.address)}{port.host}:{port.guest}/{port.protocol}") == port


def forwarded(data: bytes) -> None:
    """The ports of an annotation."""
    found = ports.parse_forwarded(data.decode())
    for first, last in (*found.tcp, *found.udp):
        assert 1 <= first <= last <= 65535


def resolver(data: bytes) -> None:
    """A ``resolv.conf``."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        joined.nameserver(file.name)


def attributes(data: bytes) -> None:
    """Attributes of the kernel's messages."""
    for value in netlink.attributes(data).values():
        assert value in data


PARSERS = (configuration, answer, published, forwarded, resolver, attributes)
SEEDS = (
    b'\0{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"bridge","capabilities":{"portMappings":true}}]}',
    b'\0{"cniVersion":"0.3.1","name":"n","type":"ptp","ipam":{"type":"host-local"}}',
    b'\1{"ips":[{"address":"10.1.2.3/24"}],"dns":{"nameservers":["fe80::1","10.1.2.1"]}}',
    b'\1{"code":7,"msg":"no","details":"why\\n"}',
    b"\x02127.0.0.1:8080:80/udp",
    b"\x0380/tcp,53/udp,8000-8010",
    b"\x04search x\nnameserver 10.96.0.10\n",
    b"\x05\x08\0\1\0abcd\x05\0\2\0x\0\0\0",
)


def one_input(data: bytes) -> None:
    """One input to its parser."""
    if not data:
        return
    try:
        PARSERS[data[0] % len(PARSERS)](data[1:])
    except (UnikeelError, ValueError):  # UnicodeDecodeError is one, and the rule that an annotation's ports break
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
