#!/usr/bin/env bash
# On a machine with an NVIDIA GPU: build, test, benchmark and sanitize in under nine minutes, most
# important first.
#
#     bash bench/gpu_check.sh                      results go to $OUT, or to bench/results/<device>/
#     ONLY="tests kernels" bash bench/gpu_check.sh the build and these stages
#
# A stage that fails or runs out of time loses its own result only. What all of them printed is
# beside the results, and the last lines say how each ended and how to run those that had no time.
# Exit 1 if any failed.
set -u
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} # what needs no extension runs without the build

device=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -1 |
  tr 'A-Z ' 'a-z-' | tr -cd 'a-z0-9-')
[ -n "$device" ] || { echo "there is no NVIDIA GPU here: nvidia-smi names none" >&2; exit 2; }
out=${OUT:-bench/results/$device}
mkdir -p "$out"
log=$out/gpu_check.log
: >"$log"
unset TRITON_INTERPRET VITRESNAS_BACKEND
summary=""
left=""
failed=0

total=${TOTAL:-520} # seconds in all: a stage gets its limit, or what is left

stage() { # stage NAME SECONDS COMMAND...
  local name=$1 limit=$2 start=$SECONDS code
  shift 2
  case " build environment ${ONLY:-$name} " in *" $name "*) ;; *) return ;; esac
  if [ $((total - SECONDS)) -lt $((limit / 2)) ]; then
    left+=" $name"
    return
  fi
  if [ $((total - SECONDS)) -lt "$limit" ]; then limit=$((total - SECONDS)); fi
  echo "== $name (at most $limit s)" | tee -a "$log"
  timeout --kill-after=3 $((limit - 3)) "$@" >"$out/.stage" 2>&1
  code=$?
  cat "$out/.stage" >>"$log"
  tail -n 15 "$out/.stage"
  rm -f "$out/.stage"
  if [ $code -ne 0 ]; then failed=1; fi
  summary+="$name: exit $code after $((SECONDS - start)) s"$'\n'
}

# A result is current while the code that shaped it is what it was, committed and unchanged since.
current() { # current FILE PATH...
  "$PYTHON" - "$@" <<'PYTHON'
import json, subprocess, sys
from pathlib import Path
file, *paths = sys.argv[1:]
found = json.loads(Path(file).read_text())
then = found.get("conditions", [found])[0]["environment"]["commit"]
if not then or then.endswith("+"):
    sys.exit(1)
# Against the working tree: changes that are not committed count too.
sys.exit(subprocess.run(["git", "diff", "--quiet", then, "--", *paths]).returncode)
PYTHON
}

benchmark() { # benchmark NAME SECONDS "PATH..." COMMAND...   the command gets --out FILE
  local name=$1 limit=$2 paths=$3
  shift 3
  local committed=bench/results/$device/$name.json
  # shellcheck disable=SC2086  # the paths are words
  if [ -f "$committed" ] && current "$committed" $paths 2>/dev/null; then
    summary+="$name: the committed result is of this code"$'\n'
    return
  fi
  stage "$name" "$limit" "$@" --out "$out/$name.json"
}

# pyproject's own options ask for pytest-benchmark, which such a machine may lack; so it may lack
# what other rooms' tests import. Most of the time kernels are compiled, which takes a core each.
gpu_tests=("$PYTHON" -m pytest -m gpu -v -p no:cacheprovider -o addopts=--import-mode=importlib
  --continue-on-collection-errors)
if "$PYTHON" -c "import xdist" 2>/dev/null; then gpu_tests+=(-n 8); fi

kernels="csrc kernels CMakeLists.txt setup.py vitresnas/ops"
networks="$kernels vitresnas/models vitresnas/space"

stage build 150 "$PYTHON" -m pip install -e . --no-build-isolation --no-deps -v
stage environment 10 "$PYTHON" -m vitresnas.env
stage tests 110 "${gpu_tests[@]}"
# The step takes every kernel that agrees with the reference, proven on this GPU or not.
step=(env VITRESNAS_UNPROVEN=1 "$PYTHON" bench/supernet_step.py --space tiny --device cuda
  --dtype bf16 --batch-size 128 --groups 2 --rounds 3)
step_paths="$networks vitresnas/supernet bench/supernet_step.py"
benchmark supernet_step_tiny 110 "$step_paths" \
  "${step[@]}" --paths dense masked masked-math sliced fused fused-graph
benchmark kernels 60 "$kernels bench/kernels.py bench/kernel_cases" \
  "$PYTHON" bench/kernels.py --rounds 20 --seconds 45 --op masked_layer_norm --op variable_linear \
  --op variable_reduction --op variable_patch_embedding
benchmark kernels_attention 45 "$kernels bench/kernels.py bench/kernel_cases" \
  "$PYTHON" bench/kernels.py --rounds 20 --seconds 30 --op variable_attention
# Four conditions in one file; those that are there stay if a later one runs out of time.
# shellcheck disable=SC2016  # expanded by the inner shell
benchmark latency_table_tiny 110 "$networks vitresnas/latency bench/latency_table.py" \
  bash -c 'for batch in 128 1; do for runtime in eager cuda-graph; do
    "$0" bench/latency_table.py --space tiny --device cuda --dtype bf16 --seconds 12 \
      --batch-size $batch --runtime $runtime "$@" || exit
  done; done' "$PYTHON"
# Compiling the masked network takes most of this.
benchmark supernet_step_tiny_compiled 110 "$step_paths" \
  "${step[@]}" --paths masked masked-compiled fused fused-graph
if command -v compute-sanitizer >/dev/null; then
  # Without the caching allocator: a tensor's end is then the end of its memory.
  export PYTORCH_NO_CUDA_MEMORY_CACHING=1
  for tool in memcheck racecheck initcheck; do
    stage $tool 60 compute-sanitizer --tool $tool --error-exitcode 9 \
      "$PYTHON" bench/sanitize.py --trials
  done
else
  summary+="memcheck, racecheck, initcheck: no compute-sanitizer on PATH"$'\n'
fi

if [ -n "$left" ]; then
  failed=1
  summary+="no time was left for these: ONLY=\"${left# }\" bash bench/gpu_check.sh"$'\n'
fi
printf '\n%s' "$summary" | tee -a "$log"
exit $failed
