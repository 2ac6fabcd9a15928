#!/bin/bash
# A real systemd as process 1, in namespaces of its own and on a throw-away overlay of this
# machine's root: nothing outside is seen, changed or reached. Root only. $1: an empty directory;
# $2: a control group of its own on the unified hierarchy, to be removed afterwards.
set -euo pipefail
export BOX="$1"
mkdir -p "$2"
echo $$ >"$2/cgroup.procs"
# shellcheck disable=SC2016 # it is the inner shell that expands
exec unshare --pid --fork --mount --uts --ipc --net --cgroup --kill-child bash -euc '
mount --make-rprivate /
mount -t tmpfs box "$BOX"
mkdir "$BOX/upper" "$BOX/work" "$BOX/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$BOX/upper,workdir=$BOX/work" "$BOX/root"
cd "$BOX/root"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t tmpfs -o mode=755 tmpfs dev
for name in null zero full random urandom tty; do
  touch "dev/$name"
  mount --bind "/dev/$name" "dev/$name"
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
mount -t tmpfs tmpfs dev/shm
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t cgroup2 cgroup2 sys/fs/cgroup
ip link set lo up
mkdir -p .old etc/systemd/system
# The services of this machine are not wanted twice.
for unit in etc/systemd/system/multi-user.target.wants/*; do
  [ -e "$unit" ] || [ -L "$unit" ] || continue
  ln -sf /dev/null "etc/systemd/system/$(basename "$unit")"
done
pivot_root . .old
cd /
umount -l /.old
# What systemd mounts for a service (credentials) must reach it.
mount --make-rshared /
export container=other
exec /lib/systemd/systemd --system --unit=multi-user.target --log-target=console
'
