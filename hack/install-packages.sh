#!/usr/bin/env bash
# Install the Debian packages that are missing; says which. Names them and stops where that is not possible.
set -euo pipefail

missing=()
for package in "$@"; do
  # libclang-rt-dev is a package of its own in newer releases and named by version in Debian 12.
  if [ "$package" = libclang-rt-dev ] && ! apt-cache show "$package" >/dev/null 2>&1; then
    package="libclang-rt-$(apt-cache depends clang 2>/dev/null | sed -n 's/.*Depends: clang-\([0-9]*\).*/\1/p' | head -1)-dev"
  fi
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
  echo "setup: these packages are missing, and installing them needs apt-get and root: ${missing[*]}" >&2
  exit 1
fi
echo "setup: installing ${missing[*]}"
apt-get update -qq
# No service of a package starts here: tests start what they need themselves.
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
