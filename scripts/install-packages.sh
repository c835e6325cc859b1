#!/usr/bin/env bash
# Installs the Debian packages that unikeel, its samples and its tests use (Debian 12 and later), as root; does nothing,
# quickly, if they are all there. With --long, also those that only the long form of the tests uses.
set -euo pipefail

packages=(
    # to run: the monitor, the sandbox, snapshots, images, the network
    qemu-system-x86 qemu-utils crun runc e2fsprogs skopeo ca-certificates passt zstd
    # networks of `--net CONFLIST`, and what the tests make namespaces with
    containernetworking-plugins iproute2
    # a monitor that needs no virtualization
    user-mode-linux
    # the virtual environment
    python3 python3-venv
    # the samples: a compiler, and static libraries
    gcc libc6-dev make
    # the tests: oracles for the readers, and a look from outside
    erofs-utils xfsprogs btrfs-progs curl git mount procps util-linux
    # the lab: roots of other releases, and its machine's disk
    debootstrap debian-archive-keyring tar
)
# a browser that looks at the benchmarks' report
[ "${1:-}" != --long ] || packages+=(chromium-headless-shell)

missing=()
for package in "${packages[@]}"; do
    state=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null) || state=
    [ "$state" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" -ne 0 ]; then
    echo "install-packages: these packages are missing, and installing them needs root: ${missing[*]}" >&2
    exit 1
fi

export DEBIAN_FRONTEND=noninteractive
apt_get() { apt-get -q -y -o DPkg::Lock::Timeout=300 "$@" </dev/null; }

echo "install-packages: ${missing[*]}"
apt_get update
apt_get install --no-install-recommends "${missing[@]}"
