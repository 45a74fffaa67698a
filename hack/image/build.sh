#!/usr/bin/env bash
# Build an image without docker and without a registry; leaves it as an OCI archive in build/image/NAME.tar.
#   build.sh NAME DOCKERFILE CONTEXT REFERENCE     REFERENCE: how the image is called, as REGISTRY/NAME:TAG
# The base that Dockerfiles call debian:12-slim is made here, with mmdebstrap. Layers are kept in ~/.cache/ambient-kube, so
# that what did not change is not made again; remove that directory to start from nothing.
set -euo pipefail
[ -n "${IMAGE_NAMESPACE:-}" ] || IMAGE_NAMESPACE=1 exec unshare --mount -- "$0" "$@" # what is mounted here goes with us
name=$1 dockerfile=$2 context=$3 reference=$4
base=localhost/debian:12-slim # what FROM debian:12-slim finds, before any registry is asked
store=${XDG_CACHE_HOME:-$HOME/.cache}/ambient-kube/images
out=build/image
mkdir -p "$store" "$out"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
buildah() { command buildah --root "$store/root" --runroot "$scratch/run" "$@"; }

make_base() {
  echo "image: making the base with mmdebstrap, this once"
  local container
  mmdebstrap --quiet --variant=minbase \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    bookworm "$scratch/base.tar"
  container=$(buildah from scratch)
  buildah add -q "$container" "$scratch/base.tar" / >/dev/null
  buildah config --cmd bash "$container"
  buildah commit -q --rm "$container" "$base" >/dev/null
}

options=(--layers --pull-never --force-rm --isolation chroot --network host --timestamp 0 --quiet)
# A machine may trust more roots than Debian does; pip then needs to, too.
roots=/etc/ssl/certs/ca-certificates.crt
if [ -f "$roots" ]; then options+=(--volume "$roots:/run/roots.pem:ro" --build-arg PIP_CERT=/run/roots.pem); fi

exec 9>"$store/lock"
flock 9 # several checkouts share the store
buildah inspect --type image "$base" >/dev/null 2>&1 || make_base
buildah bud "${options[@]}" --iidfile "$out/$name.new" --file "$dockerfile" "$context" >/dev/null
id=$(cat "$out/$name.new")
echo " $reference" >>"$out/$name.new"
if [ -f "$out/$name.tar" ] && cmp -s "$out/$name.new" "$out/$name.id"; then
  rm "$out/$name.new"
  exit 0
fi
rm -f "$out/$name.id"
buildah push -q "$id" "oci-archive:$out/$name.tar.new:$reference"
mv "$out/$name.tar.new" "$out/$name.tar"
mv "$out/$name.new" "$out/$name.id"
echo "image: $reference in $out/$name.tar, $(du -h "$out/$name.tar" | cut -f1) compressed"
