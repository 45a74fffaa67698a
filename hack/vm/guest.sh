#!/bin/bash
# In a virtual machine: run a program in this checkout, on the root file system of the machine around it.
# guest.sh DIRECTORY SHARED REPOSITORY TAG: runs the words of DIRECTORY/program, each of which ends in a NUL; what it prints
# goes to DIRECTORY/output, how it ended to DIRECTORY/status. SHARED, which DIRECTORY is in, is the one place outside that can
# be written.
set -euo pipefail
directory=$1 shared=$2 repository=$3 tag=$4
exec >>"$directory/output" 2>&1
mapfile -t -d '' program <"$directory/program"

# What virtme-ng mounts as root asks the machine around it for every byte, each time. Nobody changes these files while
# tests run: mounted once more with a cache they are as fast as a disk. Changes are kept in memory.
modprobe -a 9pnet_virtio overlay
root=/run/ambient-vm/root
mkdir -p /run/ambient-vm/{below,above} $root
mount -t 9p -o ro,trans=virtio,version=9p2000.L,cache=loose,msize=512000 "$tag" /run/ambient-vm/below
mount -t tmpfs -o size=75% none /run/ambient-vm/above
mkdir /run/ambient-vm/above/{upper,work}
layers=lowerdir=/run/ambient-vm/below,upperdir=/run/ambient-vm/above/upper,workdir=/run/ambient-vm/above/work
mount -t overlay -o "$layers" none $root
for each in proc sys dev lib/modules; do mount --rbind "/$each" "$root/$each"; done
for each in run tmp; do mount -t tmpfs none "$root/$each"; done
if [ ! -d "$root$repository" ]; then # it lies below /tmp
  mkdir -p "$root$repository"
  mount --bind "/run/ambient-vm/below$repository" "$root$repository"
fi
mount --bind "$shared" "$root$shared"
# As systemd mounts it.
mountpoint -q /sys/fs/bpf || mount -t bpf bpf $root/sys/fs/bpf

# The root of a mount namespace, and no chroot: a lab's pods are entered by setns(), which would lead out of that, to files
# that are not theirs (/etc/hosts).
status=0
# shellcheck disable=SC2016 # the inner shell expands it
enter='cd "$1" && shift && pivot_root . . && umount -l . && cd "$1" && shift && exec "$@"'
unshare --mount --propagation private /bin/bash -c "$enter" - $root "$repository" "${program[@]}" || status=$?
echo $status >"$directory/status"
