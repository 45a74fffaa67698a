#!/usr/bin/env bash
# The engine's black-box tests against its ASan+UBSan and TSan builds, and each fuzzer for a bounded time on its kept corpus.
# FUZZ_SECONDS: per target, 30 by default.
set -euo pipefail
cd "$(dirname "$0")/.."

make -s -C engine asan tsan fuzz
pytest=(.venv/bin/python -m pytest -q -p no:cacheprovider --reruns 2 -m kernel)
# A sanitized engine is not sandboxed: its leak check needs /proc. The sandbox is tested with the real build.
echo "sanitized: ASan and UBSan"
AMBIENT_ENGINE=build/ambient-engine-asan ASAN_OPTIONS=detect_leaks=1 UBSAN_OPTIONS=print_stacktrace=1 AMBIENT_NO_SKIP=1 \
  "${pytest[@]}" tests/engine --ignore tests/engine/test_sandbox.py
echo "sanitized: TSan, where several workers live side by side"
AMBIENT_ENGINE=build/ambient-engine-tsan TSAN_OPTIONS=halt_on_error=1 AMBIENT_NO_SKIP=1 \
  "${pytest[@]}" tests/engine/test_{pair,bytes,crowd,remembered,agent_death,leaving,records}.py

found=$(mktemp -d)
trap 'rm -rf "$found"' EXIT
for target in build/fuzz/*; do
  name=$(basename "$target")
  echo "fuzzing $name for ${FUZZ_SECONDS:-30} s"
  if ! "$target" -max_total_time="${FUZZ_SECONDS:-30}" -timeout=10 -rss_limit_mb=2048 -close_fd_mask=2 -print_final_stats=1 \
    -artifact_prefix="$found/" "$found" "engine/fuzz/corpus/$name" >"$found.log" 2>&1; then
    tail -40 "$found.log" >&2
    echo "fuzzing $name failed: the input is above, as base64" >&2
    exit 1
  fi
  sed -n 's/^stat::number_of_executed_units: */  inputs tried: /p' "$found.log"
done
rm -f "$found.log"
