#!/bin/bash
# sandbox.sh WORK PROJECT PORT FOLDER...: run dockerd with a root of its own. Called in new namespaces; see sandbox.py.
# runc needs a real root, so the root changes by pivot_root. PROJECT and the FOLDERs are mounted read-only.
set -euo pipefail
work=$1 project=$2 port=$3 root=$1/toolroot
shift 3
mount --make-rprivate /
mount --bind "$root" "$root"
mkdir -p "$root"/{proj,box,var/lib/docker,old}
mount --rbind /dev "$root/dev"
mount --rbind /sys "$root/sys"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
mount --bind "$project" "$root/proj"
mount -o remount,bind,ro "$root/proj"
for folder in "$@"; do
  mkdir -p "$root/host$folder"
  mount --bind "$folder" "$root/host$folder"
  mount -o remount,bind,ro "$root/host$folder"
done
mount --bind "$work" "$root/box"
mount --bind "$work/docker-data" "$root/var/lib/docker"
echo "nameserver 10.0.2.3" > "$root/etc/resolv.conf"  # slirp4netns's
cd "$root"
pivot_root . old
umount -l /old
cd /
ip link set lo up
for _ in $(seq 200); do
  ip -4 addr show tap0 2>/dev/null | grep -q inet && break
  sleep 0.1
done
(cd /box/serve && exec python3 -m http.server "$port" --bind 0.0.0.0 >/box/log/http.log 2>&1) &
dockerd --data-root /var/lib/docker --host unix:///run/docker.sock --dns 10.0.2.3 >/box/log/dockerd.log 2>&1 &
wait $!
