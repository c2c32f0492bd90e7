#!/usr/bin/env bash
# On a machine with an NVIDIA GPU: build, test, sanitize and benchmark in under nine minutes.
#
#     bash bench/gpu_check.sh             results go to $OUT, or to bench/results/<device>/
#
# A stage that fails or runs out of time loses its own result only; what it printed is kept beside
# the results, and the last lines say how every stage ended. Exit 1 if any failed.
set -u
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}

device=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -1 |
  tr 'A-Z ' 'a-z-' | tr -cd 'a-z0-9-')
[ -n "$device" ] || { echo "there is no NVIDIA GPU here: nvidia-smi names none" >&2; exit 2; }
out=${OUT:-bench/results/$device}
mkdir -p "$out"
unset TRITON_INTERPRET VITRESNAS_BACKEND
summary=""
failed=0

stage() { # stage NAME SECONDS COMMAND...
  local name=$1 limit=$2 start=$SECONDS code
  shift 2
  echo "== $name (at most $limit s)"
  timeout --kill-after=10 "$limit" "$@" >"$out/$name.log" 2>&1
  code=$?
  tail -n 15 "$out/$name.log"
  if [ $code -ne 0 ]; then failed=1; fi
  summary+="$name: exit $code after $((SECONDS - start)) s"$'\n'
}

# Timings of the same commit are not taken twice; another commit or other changes take them again.
current() { # current FILE
  "$PYTHON" - "$1" <<'PYTHON'
import json, sys
from pathlib import Path
from vitresnas.latency.environment import commit
found = json.loads(Path(sys.argv[1]).read_text())
now, then = commit(), found.get("conditions", [found])[0]["environment"]["commit"]
sys.exit(not (now and not now.endswith("+") and then == now))
PYTHON
}

benchmark() { # benchmark NAME SECONDS COMMAND...   the command gets --out FILE
  local name=$1 limit=$2
  shift 2
  local committed=bench/results/$device/$name.json
  if [ -f "$committed" ] && current "$committed" 2>/dev/null; then
    summary+="$name: results of this commit are there already"$'\n'
    return
  fi
  stage "$name" "$limit" "$@" --out "$out/$name.json"
}

# pyproject's own options ask for pytest-benchmark, which such a machine may lack.
gpu_tests=("$PYTHON" -m pytest -m gpu -q -p no:cacheprovider -o addopts=--import-mode=importlib)

stage build 90 "$PYTHON" -m pip install -e . --no-build-isolation --no-deps -v
stage environment 20 "$PYTHON" -m vitresnas.env
stage tests 110 "${gpu_tests[@]}"
benchmark kernels 80 "$PYTHON" bench/kernels.py --rounds 30
benchmark supernet_step_tiny 60 "$PYTHON" bench/supernet_step.py --space tiny --device cuda \
  --dtype bf16 --batch-size 128 --groups 2
benchmark latency_table_tiny 70 "$PYTHON" bench/latency_table.py --space tiny --device cuda \
  --dtype bf16 --batch-size 128 --seconds 40
if command -v compute-sanitizer >/dev/null; then
  # Tiny shapes only: every memory access is followed.
  stage memcheck 45 compute-sanitizer --tool memcheck --error-exitcode 9 \
    "${gpu_tests[@]}" tests/ops -k "40 and triton"
  stage racecheck 45 compute-sanitizer --tool racecheck --error-exitcode 9 \
    "${gpu_tests[@]}" tests/ops -k "40 and triton and bfloat16"
else
  summary+="memcheck, racecheck: no compute-sanitizer on PATH"$'\n'
fi

printf '\n%s' "$summary" | tee "$out/gpu_check.txt"
exit $failed
