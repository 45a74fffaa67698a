#!/usr/bin/env bash
# Print how daemonset.yaml calls the image: what is built must be called the same.
set -euo pipefail
mapfile -t found < <(sed -n 's/^ *image: //p' "$(dirname "$0")/../../daemonset.yaml" | sort -u)
if [ ${#found[@]} != 1 ]; then
  echo "reference.sh: daemonset.yaml names ${#found[@]} images, expected one: ${found[*]}" >&2
  exit 1
fi
echo "${found[0]}"
