#!/usr/bin/env bash
# Inside the build stage: the image's root file system, out of the packages in hack/image/root-packages.txt.
#   root.sh DIRECTORY
set -euo pipefail
root=$1
packages=$(sed 's/#.*//' "$(dirname "$0")/root-packages.txt")
debs=$(mktemp -d)

mkdir -p "$root"/{dev,etc,proc,run,sys,tmp,usr/{bin,lib,lib64,sbin},var/{lib/dpkg/status.d,tmp}}
chmod 1777 "$root"/{tmp,var/tmp}
for directory in bin lib lib64 sbin; do ln -s "usr/$directory" "$root/$directory"; done

# As _apt downloads: not root, hence the directory of its own.
chown _apt "$debs"
# shellcheck disable=SC2086  # one word each
(cd "$debs" && apt-get download -qq $packages)
for deb in "$debs"/*.deb; do
  dpkg-deb --fsys-tarfile "$deb" | tar -x --keep-directory-symlink -C "$root"
  dpkg-deb --field "$deb" >"$root/var/lib/dpkg/status.d/$(dpkg-deb --field "$deb" Package)" # for scanners of images
done
rm -rf "$debs"

# The licences stay, what people read elsewhere goes.
find "$root/usr/share/doc" -type f ! -name copyright -delete
find "$root/usr/share/doc" -mindepth 1 -type d -empty -delete
rm -rf "$root"/usr/share/{binfmts,bug,gcc,gdb,lintian,locale,man}
ln -s python3.11 "$root/usr/bin/python3"

cat >"$root/etc/passwd" <<'PASSWD'
root:x:0:0:root:/root:/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin
PASSWD
printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"
printf 'passwd: files\ngroup: files\nhosts: files dns\nprotocols: files\nservices: files\n' >"$root/etc/nsswitch.conf"
ldconfig -r "$root"
rm -rf "$root"/var/cache/ldconfig

# The root is mounted read-only: what is not compiled now would be at every start.
python3 -m compileall -q --invalidation-mode unchecked-hash -s "$root" "$root/usr/lib/python3.11"
