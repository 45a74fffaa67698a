#!/usr/bin/env bash
# Makes a node out of a directory and the network namespace it is started in, and stays as the node's first process.
#   node.sh NAME ROOT PROGRAMS READY     PROGRAMS: Kubernetes' own; READY: a descriptor that is told when all is there
# Started in mount, PID, UTS and cgroup namespaces of its own. What a node changes is its own, what it reads of the machine
# (/usr, /dev) is not copied, and what is mounted here is gone when its last process is.
set -euo pipefail
name=$1 root=$2 programs=$3 ready=$4
machine=$(</proc/mounts)

mount --bind "$root" "$root"
cd "$root"
mount --rbind /dev dev
mount --rbind /usr usr
mount -o remount,bind,ro usr
mount --bind "$programs" opt/kubernetes
mount -o remount,bind,ro opt/kubernetes
mount -t proc proc proc
mount -t sysfs sysfs sys # of this network namespace
mount -t bpf bpf sys/fs/bpf
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mkdir run/netns run/lock

# The same hierarchies as the machine's; what is mounted from within a cgroup namespace shows the node's part only.
while read -r _ point kind options _; do
  case $point:$kind in
    /sys/fs/cgroup:tmpfs) mount -t tmpfs -o mode=755 cgroup ".$point" ;;
    *:cgroup2) mkdir -p ".$point" && mount -t cgroup2 cgroup2 ".$point" ;;
    *:cgroup)
      controllers=$(tr , '\n' <<<"$options" | grep -vxE 'rw|ro|nosuid|nodev|noexec|relatime|xattr|clone_children|release_agent=.*')
      mkdir -p ".$point" && mount -t cgroup -o "$(paste -sd, <<<"$controllers")" cgroup ".$point"
      ;;
  esac
done <<<"$machine"

# What kubelet sets for the whole machine is not its to set here: it writes to files that only look like it.
for key in kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes vm/overcommit_memory vm/panic_on_oom; do
  file=run/sysctl/$key
  mkdir -p "${file%/*}"
  cat "proc/sys/$key" >"$file"
  mount --bind "$file" "proc/sys/$key"
done

pivot_root . .
umount -l .
cd /
mount --make-rshared / # as systemd leaves it: what is mounted on the node shows in pods that ask for it, and back
hostname "$name"
echo ready >&"$ready"
exec {ready}>&-
exec /opt/kubernetes/pause
