"""docs/configuration.md, made from the table of keys: ``python -m unikeel.config_reference > docs/configuration.md``."""

from __future__ import annotations

import sys

from unikeel.config import DEFAULT_PATH, KEYS, VARIABLE, defaults, dump, toml_value


def reference() -> str:
    """The text of docs/configuration.md."""
    lines = [
        "# Configuration",
        "",
        "<!-- Made from the table in src/unikeel/config.py by `python -m unikeel.config_reference`; a test compares. -->",
        "",
        f"One TOML file: the one given with `--config`, else the one that `{VARIABLE}` names, else `{DEFAULT_PATH}` if it exists.",
        "Every key has a default. An unknown key is an error that names the nearest spelling, and all problems of a file are",
        "reported at once. Sizes are written like `64MiB`, `2GiB` or `512m` (units are powers of 1024), times in seconds.",
        "",
        "| key | value | default | meaning |",
        "|---|---|---|---|",
    ]
    lines += [f"| `{key.name}` | {key.kind.name} | `{toml_value(key.default)}` | {key.doc} |" for key in KEYS]
    lines += ["", "A file that says what is the default anyway:", "", "```toml", dump(defaults()).strip(), "```", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(reference())
