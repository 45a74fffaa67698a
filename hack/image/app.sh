#!/usr/bin/env bash
# Inside the build stage: Ambient's wheel, installed as it will be found below /opt/ambient.
#   app.sh DIRECTORY     the root of the image's last layer
set -euo pipefail
out=$1
pip=(/opt/build/bin/python -m pip --disable-pip-version-check)

"${pip[@]}" wheel -q --no-deps --no-build-isolation --wheel-dir /tmp/wheels .
"${pip[@]}" --python /opt/ambient/bin/python install -q --no-deps --no-compile --no-warn-script-location --root "$out" /tmp/wheels/*.whl
/opt/ambient/bin/python -m compileall -q --invalidation-mode unchecked-hash -s "$out" "$out/opt/ambient/lib"
site=$(echo "$out"/opt/ambient/lib/python3.*/site-packages)
ln -s "${site#"$out"}/ambient/native/ambient-engine" "$out/opt/ambient/bin/ambient-engine"
