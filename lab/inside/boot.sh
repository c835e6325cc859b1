#!/bin/sh
# The virtual machine's start, from the working tree's disk. Without an argument it is process 1: it prepares everything, runs the agent and
# reaps what loses its parent; when the agent ends, so does the machine. `prepare` only prepares: under systemd, which has mounted most itself.
export PATH=/opt/unikeel-launcher:/opt/lab-tools:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 HOME=/root

mounted() { grep -q "^[^ ]* $1 " /proc/mounts; }
pseudo() { mounted "$2" || { mkdir -p "$2"; mount -t "$1" -o "$3" "$1" "$2"; }; }

pseudo sysfs /sys nosuid,nodev,noexec
pseudo devtmpfs /dev nosuid
pseudo devpts /dev/pts nosuid,noexec,mode=620,ptmxmode=666
pseudo tmpfs /dev/shm nosuid,nodev
pseudo tmpfs /run nosuid,nodev,mode=755
pseudo cgroup2 /sys/fs/cgroup nosuid,nodev,noexec
modprobe -a dm_mod dm_thin_pool loop overlay erofs tun virtio_net bridge veth 2>/dev/null
mkdir -p /var/lib/lab
[ -d /unikeel/build/launcher ] && mount --bind /unikeel/build/launcher /opt/unikeel-launcher
[ -d /unikeel/.lab/tools ] && mount --bind /unikeel/.lab/tools /opt/lab-tools

pool() {
    # The thin pool of the lab: data and metadata are files. dmsetup does not wait for udev, nor need it: devtmpfs makes the nodes.
    cd /var/lib/lab || return
    [ -e meta ] || { truncate -s 64M meta; truncate -s "${LAB_POOL_MIB:-6144}M" data; }
    meta=$(losetup --find --show --direct-io=off meta) && data=$(losetup --find --show --direct-io=off data) &&
        dmsetup create pool --table "0 $(blockdev --getsz "$data") thin-pool $meta $data 128 32768 1 skip_block_zeroing"
    cd /
}

if [ "$1" = prepare ]; then
    pool
    exit 0
fi

ip link set lo up
hostname lab-vm
/usr/lib/systemd/systemd-udevd --daemon --resolve-names=never
udevadm trigger --subsystem-match=block --subsystem-match=misc &
pool
python3 -I -S /unikeel/lab/inside/agent.py &
agent=$!
while kill -0 "$agent" 2>/dev/null; do wait "$agent"; done
sync
echo o >/proc/sysrq-trigger
sleep 10
