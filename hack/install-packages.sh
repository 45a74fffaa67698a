#!/usr/bin/env bash
# Install the Debian packages that are missing; says which. Names them and stops where that is not possible.
# A name may have alternatives, first choice first: libclang-rt-dev/libclang-rt-14-dev.
set -euo pipefail

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }
known() { apt-cache policy "$1" 2>/dev/null | grep -q 'Candidate: [^(]'; }

missing=()
for name in "$@"; do
  there=
  for choice in ${name//\// }; do
    if installed "$choice"; then there=1; fi
  done
  [ -n "$there" ] || missing+=("$name")
done
[ ${#missing[@]} -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
  echo "setup: these packages are missing, and installing them needs apt-get and root: ${missing[*]}" >&2
  exit 1
fi
apt-get update -qq

wanted=()
for name in "${missing[@]}"; do
  found=
  for choice in ${name//\// }; do
    if [ -z "$found" ] && known "$choice"; then found=$choice; fi
  done
  wanted+=("${found:-${name%%/*}}") # apt says it best when there is none
done
echo "setup: installing ${wanted[*]}"
# No service of a package starts here: tests start what they need themselves.
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${wanted[@]}" >/dev/null
