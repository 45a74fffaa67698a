#!/usr/bin/env bash
# Inside the build stage: install hack/image/build-packages.txt.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
sed 's/#.*//' "$(dirname "$0")/build-packages.txt" | xargs apt-get install -y -qq --no-install-recommends >/dev/null
