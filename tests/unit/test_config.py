"""The configuration file: one table behind parsing, dump and documentation."""

from __future__ import annotations

import os
from typing import get_type_hints

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from unikeel import config, config_values
from unikeel.config import KEYS, Config, defaults, dump, field_of, load, parse
from unikeel.config_reference import reference
from unikeel.config_values import format_size, parse_size
from unikeel.errors import ConfigError, UnikeelError


def test_defaults() -> None:
    found = defaults()
    assert (found.root, found.run_root) == ("/var/lib/unikeel", "")
    assert (found.boot_strategy, found.boot_cache_size, found.boot_kernel_limit) == ("auto", 2 << 30, 512 << 20)
    assert (found.monitor_memory, found.monitor_cpus, found.sandbox_uid_base) == (256 << 20, 1, 2000000000)
    assert (found.network_address, found.keeper_idle, found.start_timeout) == ("10.0.2.15/24", 3.0, 120.0)


def test_the_table_fits_the_value() -> None:
    assert tuple(field_of(key.name) for key in KEYS) == Config._fields
    hints = get_type_hints(Config)
    for key in KEYS:
        value = key.kind.parse(key.default)
        assert type(value) is hints[field_of(key.name)]
        assert value == getattr(defaults(), field_of(key.name))
        assert key.doc.endswith(".")


def test_a_file_changes_what_it_says_and_nothing_else() -> None:
    text = b'root = "/srv/u/"\n[boot]\nstrategy = "copy"\ncache_size = 1024\n[monitor]\nmemory = "1g"\n[stop]\ntimeout = 0.5\n'
    assert parse(text, "x") == defaults()._replace(
        root="/srv/u", boot_strategy="copy", boot_cache_size=1024, monitor_memory=1 << 30, stop_timeout=0.5
    )


def test_what_is_dumped_is_read_back() -> None:
    other = defaults()._replace(root='/a"b\\c', boot_cache_size=12345, stop_timeout=86399.125, network_dns="")
    for value in (defaults(), other):
        assert parse(dump(value).encode(), "x") == value


def test_the_documentation_is_up_to_date() -> None:
    with open(os.path.join(os.path.dirname(__file__), "../../docs/configuration.md"), encoding="utf-8") as file:
        assert file.read() == reference(), "python -m unikeel.config_reference > docs/configuration.md"


def test_all_problems_are_told_at_once_with_the_nearest_spelling() -> None:
    text = b'rot = "/x"\n[boot]\nstratgy = "copy"\nfill_timeout = -1\n[monitor]\naccel = "kvn"\n[nonsense]\n[keeper]\n'
    with pytest.raises(ConfigError) as caught:
        parse(text, "/etc/x.toml")
    assert caught.value.message == (
        "/etc/x.toml: boot.fill_timeout = '-1': must be a number of seconds from 0 to 86400; "
        "key 'boot.stratgy' is unknown (did you mean boot.strategy?); key 'nonsense' is unknown; "
        "key 'rot' is unknown (did you mean root?); "
        "monitor.accel = 'kvn': must be one of auto, kvm, tcg (did you mean kvm?)"
    )


BAD = [
    (b"\xff", "not TOML"),
    (b"root", "not TOML"),
    (b"a = " + b"[" * 5000, "not TOML"),
    (b"# " + b"x" * (1 << 20), "longer than"),
    (b"root = 1", "root = '1': must be printable text"),
    (b'root = "relative"', "must be an absolute path"),
    (b'root = "/a/../b"', "must be an absolute path"),
    (b'root = "/a\\u0000"', "must be printable text"),
    (b"boot = 1", "key 'boot' is unknown"),
    (b"[root]\nx = 1", "key 'root.x' is unknown"),
    (b"[boot.strategy]", "boot.strategy = '{}': must be one of"),
    (b'[boot]\ncache_size = "2GB"', "must be a size such as 64MiB"),
    (b"[boot]\ncache_size = true", "must be a size"),
    (b"[boot]\ncache_size = -1", "at least 0"),
    (b"[boot]\ncache_size = 0x" + b"f" * 5000, "a huge number: must be a size"),
    (b"[boot]\nfill_timeout = nan", "must be a number of seconds"),
    (b"[monitor]\ncpus = 1.0", "must be a whole number from 1 to 255"),
    (b"[monitor]\nmemory = 8388609", "whole number of MiB"),
    (b'[monitor]\nmemory = "7MiB"', "at least 8MiB"),
    (b'[network]\naddress = "10.0.2.15"', "with a prefix"),
    (b'[network]\naddress = "10.0.2.300/24"', "network.address = '10.0.2.300/24'"),
    (b'[network]\ngateway = "10.0.3.2"', "10.0.3.2 is not inside network.address 10.0.2.15/24"),
    (b'[network]\ndns = "10.0.2.15"', "is also the gateway or the name server"),
    (b"[sandbox]\nuid_base = 4294967294", "beyond the last user id"),
]


@pytest.mark.parametrize(("text", "message"), BAD)
def test_bad_files_are_refused_with_key_and_rule(text: bytes, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse(text, "/etc/x.toml")
    assert caught.value.message.startswith("/etc/x.toml")
    assert len(caught.value.message) < 1000


def test_which_file_is_read(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, name in enumerate(("default", "variable", "option"), start=2):
        with open(f"{tmp_path}/{name}", "w", encoding="utf-8") as file:
            file.write(f"[monitor]\ncpus = {number}\n")
    monkeypatch.setattr(config, "DEFAULT_PATH", f"{tmp_path}/default")
    environment = {"UNIKEEL_CONFIG": f"{tmp_path}/variable"}
    assert load(f"{tmp_path}/option", environment).monitor_cpus == 4
    assert load("", environment).monitor_cpus == 3
    assert load("", {}).monitor_cpus == 2
    os.unlink(f"{tmp_path}/default")
    assert load("", {}) == defaults()


def test_a_file_that_somebody_named_must_be_there(tmp_path: object) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        load(f"{tmp_path}/none", {})
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load("", {"UNIKEEL_CONFIG": str(tmp_path)})


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1024", 1024),
        ("64MiB", 64 << 20),
        ("2 GiB", 2 << 30),
        ("512m", 512 << 20),
        ("1T", 1 << 40),
        ("7B", 7),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "MiB", "-1", "1.5GiB", "1MB", "1mib", "1 K B", "\u0661", "1" * 20, "0x10", "1KiBs"]
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="must be a size"):
        parse_size(text)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, (1 << 49)))
def test_a_size_that_is_written_is_read_back(size: int) -> None:
    assert parse_size(format_size(size)) == size


@settings(max_examples=150, deadline=None)
@example("boot.cache_size", 1_000_000_000_000_001)
@example("boot.cache_size", (1 << 60) - 1)
@given(
    st.sampled_from([key.name for key in KEYS] + ["x.y"]),
    st.text(max_size=12) | st.integers() | st.floats() | st.sampled_from(["[]", "{}", '""', "true", "1979-05-27"]),
)
def test_any_value_gives_a_configuration_or_our_error(name: str, value: object) -> None:
    section, _, last = name.rpartition(".")
    text = f"[{section}]\n{last} = {value}" if section else f"{last} = {value}"
    try:
        found = parse(text.encode(errors="surrogatepass"), "x")
    except UnikeelError:
        return
    assert parse(dump(found).encode(), "x") == found


def test_choices_name_themselves_in_the_documentation() -> None:
    assert config_values.choice("a", "b").name == "`a` \\| `b`"
