#!/usr/bin/env bash
# Inside the build stage: what pyproject.toml requires. /opt/ambient is what the image gets (no pip in there), /opt/build
# has the tools that make our wheel.
set -euo pipefail

requirements() {
  python3 -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))$1, sep='\n')"
}
pip=(/opt/build/bin/python -m pip install -q --disable-pip-version-check --no-cache-dir)

python3 -m venv /opt/build
requirements "['build-system']['requires']" >/tmp/build.txt
"${pip[@]}" -r /tmp/build.txt

python3 -m venv --without-pip /opt/ambient
requirements "['project']['dependencies']" >/tmp/libraries.txt
"${pip[@]::3}" --python /opt/ambient/bin/python "${pip[@]:3}" --no-compile --only-binary :all: -r /tmp/libraries.txt
rm -rf /opt/ambient/bin/{activate*,Activate*} /opt/ambient/include
find /opt/ambient -name '*.so' -exec strip --strip-unneeded {} +
/opt/ambient/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/ambient/lib
