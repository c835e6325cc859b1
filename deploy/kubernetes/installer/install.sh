#!/bin/sh
# What the installer's pod does on its node: puts unikeel into /opt/unikeel, joins it to containerd, and stays until it is ended.
#
#   install.sh              install, then wait
#   install.sh uninstall    take it back, then wait (guests that run go on; drain the node before)
#
# HOST is where the node's root is mounted. UNIKEEL_OPTIONS are further options of `unikeel install containerd`. Commands run in the node's
# own namespaces, with its own programs: it needs Python 3.11 or newer with venv, QEMU, and crun or runc, and is told so if it has none.
set -eu

HOST=${HOST:-/host}
PAYLOAD=${PAYLOAD:-/payload}
PREFIX=${PREFIX:-/opt/unikeel}
UNIKEEL_OPTIONS=${UNIKEEL_OPTIONS:-}
KEEP=${KEEP:-yes}

say() { printf 'unikeel-installer: %s\n' "$*" >&2; }
on_node() { nsenter --target 1 --mount --uts --ipc --net --pid -- "$@"; }

need() {
    on_node sh -c "command -v $1 >/dev/null" || { say "the node has no $1; install $2"; missing=yes; }
}

install() {
    missing=no
    need python3 python3
    need qemu-system-x86_64 qemu-system-x86
    on_node sh -c 'command -v crun >/dev/null || command -v runc >/dev/null' || { say "the node has neither crun nor runc"; missing=yes; }
    on_node python3 -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' || { say "the node needs Python 3.11 or newer, with venv"; missing=yes; }
    [ "$missing" = no ] || exit 1

    # Beside the old one, then in its place: a daemon that runs keeps what it has loaded.
    rm -rf "$HOST$PREFIX.wheels" && mkdir -p "$HOST$PREFIX.wheels"
    cp "$PAYLOAD"/wheels/*.whl "$HOST$PREFIX.wheels/"
    [ -x "$HOST$PREFIX/bin/python" ] || on_node python3 -m venv "$PREFIX"
    on_node "$PREFIX/bin/python" -m pip install -q --disable-pip-version-check --no-index --find-links "$PREFIX.wheels" --upgrade unikeel
    rm -rf "$HOST$PREFIX.wheels"

    # shellcheck disable=SC2086 # options are words
    report=$(on_node "$PREFIX/bin/unikeel" install containerd --systemd --yes --json $UNIKEEL_OPTIONS)
    follow "$report"
    on_node systemctl enable --quiet --now unikeel.socket
    on_node "$PREFIX/bin/unikeel" doctor || say "the node's own examination found problems, see above"
}

uninstall() {
    [ -x "$HOST$PREFIX/bin/unikeel" ] || { say "unikeel is not installed here"; return; }
    report=$(on_node "$PREFIX/bin/unikeel" install containerd --uninstall --yes --json)
    follow "$report"
    rm -rf "$HOST$PREFIX"
}

# Do what `unikeel install` says comes next; nothing, if nothing was changed.
follow() {
    say "$1"
    printf '%s' "$1" | on_node python3 -c 'import json, sys; print("\n".join(json.load(sys.stdin)["next"]))' | while read -r command; do
        # shellcheck disable=SC2086 # a command is words
        case $command in
            "systemctl "*) say "$command"; on_node $command </dev/null || say "failed: $command" ;;
            "") ;;
            *) say "not done: $command" ;;
        esac
    done
}

case ${1:-install} in
    install) install; say "installed" ;;
    uninstall) uninstall; say "uninstalled" ;;
    *) say "there is nothing called $1"; exit 2 ;;
esac
touch "${READY:-/tmp/ready}"
if [ "$KEEP" = yes ]; then
    trap 'exit 0' TERM INT
    while :; do sleep 3600 & wait $!; done
fi
