#!/usr/bin/env bash
# Everything a machine with an NVIDIA GPU can tell of the kernels. Needs Linux and nvcc; neither Node.js nor a network.
set -uo pipefail
usage() {
  cat <<'TEXT'
usage: bench/gpu/run.sh [--out DIR] [--arch sm_90a] [--phases LIST]

Builds the lab (bench/lab) and runs, in this order:

  invariance  bits of rows between launches of different sizes
  memcheck    compute-sanitizer over every kernel once        (needs compute-sanitizer)
  racecheck   the same for shared memory                      (needs compute-sanitizer)
  parity      the case tables of the tests on the device      (needs Node.js, node_modules and a build with the CUDA library)
  kernels     copy bandwidth, and the time of every kernel and of whole steps at 1 to 64 rows
  rounds      whole rounds of 1 to 64 requests on random weights, plain and drafted with a simulated acceptance

--phases is a comma-separated part of that list (default: all). What cannot run is reported as skipped, with the reason.
Results and logs go to DIR (default: bench/results/gpu-<date>). Exit code: 0 when everything that ran has passed and something did,
1 when something failed, 2 when nothing could run.
TEXT
}
cd "$(dirname "$0")/../.."
out=bench/results/gpu-$(date +%F) arch= phases=invariance,memcheck,racecheck,parity,kernels,rounds
while [ $# -gt 0 ]; do
  case $1 in
    --out) out=${2:?--out needs a folder}; shift ;;
    --arch) arch=${2:?--arch needs a name}; shift ;;
    --phases) phases=${2:?--phases needs a list}; shift ;;
    --help) usage; exit 0 ;;
    *) usage >&2; exit 64 ;;
  esac
  shift
done
known=" invariance memcheck racecheck parity kernels rounds "
for phase in ${phases//,/ }; do
  case $known in *" $phase "*) ;; *) echo "unknown phase $phase" >&2; usage >&2; exit 64 ;; esac
done

passed=() failed=() skipped=()
skip() { skipped+=("$1: $2"); }
# step NAME COMMAND...: its output to a log, its last lines to the screen
step() {
  local name=$1 start=$SECONDS
  shift
  echo "== $name"
  if "$@" >"$out/$name.log" 2>&1; then passed+=("$name ($((SECONDS - start)) s)"); else failed+=("$name, see $out/$name.log"); fi
  tail -n 5 "$out/$name.log"
}

# sm_ name of the first device, as nvidia-smi tells its compute capability.
device_arch() {
  local capability
  capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -d '. ') || return 1
  [ -n "$capability" ] || return 1
  [ "$capability" = 90 ] && capability=90a
  echo "sm_$capability"
}

why=
if ! command -v nvcc >/dev/null; then why="there is no nvcc"; fi
if [ -z "$why" ] && ! found=$(device_arch); then why="nvidia-smi finds no device"; fi
if [ -n "$why" ]; then
  for phase in ${phases//,/ }; do skip "$phase" "$why"; done
else
  mkdir -p "$out"
  lab=build/lab/lab
  step build bench/lab/build.sh "${arch:-$found}" "$lab"
  nvidia-smi >"$out/nvidia-smi.log" 2>&1
  for phase in ${phases//,/ }; do
    if [ ${#failed[@]} -gt 0 ] && [ "${failed[0]%%,*}" = build ]; then skip "$phase" "the lab was not built"; continue; fi
    case $phase in
      invariance) step invariance "$lab" invariance ;;
      memcheck | racecheck)
        if command -v compute-sanitizer >/dev/null; then
          step "$phase" compute-sanitizer --error-exitcode 1 --tool "$phase" "$lab" once --model 1B --rows 8
        else
          skip "$phase" "there is no compute-sanitizer"
        fi ;;
      parity)
        if ! command -v node >/dev/null || [ ! -d node_modules/vitest ]; then
          skip parity "there is no Node.js, or no node_modules"
        elif [ ! -e build/testing/redrafter_testing.node ] || [ ! -e build/testing/redrafter_cuda.so ]; then
          skip parity "the addon for tests and the CUDA library are not built (npm run build)"
        else
          step parity env REDRAFTER_TEST_CUDA=1 node node_modules/vitest/vitest.mjs run --project kernels -t 'cuda '
        fi ;;
      kernels) step kernels "$lab" time --json "$out/kernels.json" ;;
      rounds) step rounds "$lab" rounds --json "$out/rounds.json" ;;
    esac
  done
fi

echo
for line in "${passed[@]}"; do echo "passed   $line"; done
for line in "${failed[@]}"; do echo "failed   $line"; done
for line in "${skipped[@]}"; do echo "skipped  $line"; done
[ ${#failed[@]} -gt 0 ] && exit 1
[ ${#passed[@]} -gt 0 ] || exit 2
