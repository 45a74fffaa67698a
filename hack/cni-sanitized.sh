#!/usr/bin/env bash
# The CNI plugin's contract against its ASan+UBSan build, and its fuzzer for a bounded time on its kept corpus.
# FUZZ_SECONDS: 30 by default.
set -euo pipefail
cd "$(dirname "$0")/.."

make -s -C cni asan fuzz
echo "sanitized: the CNI plugin"
AMBIENT_CNI=build/ambient-cni-asan UBSAN_OPTIONS=print_stacktrace=1 \
  .venv/bin/python -m pytest -q -p no:cacheprovider -m "not kernel" tests/cni/test_contract.py

found=$(mktemp -d)
trap 'rm -rf "$found" "$found.log"' EXIT
echo "fuzzing the CNI plugin's stdin for ${FUZZ_SECONDS:-30} s"
if ! build/fuzz-cni/stdin -max_total_time="${FUZZ_SECONDS:-30}" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
  -artifact_prefix="$found/" "$found" cni/fuzz/corpus/stdin >"$found.log" 2>&1; then
  tail -40 "$found.log" >&2
  echo "fuzzing failed: the input is above, as base64" >&2
  exit 1
fi
sed -n 's/^stat::number_of_executed_units: */  inputs tried: /p' "$found.log"
