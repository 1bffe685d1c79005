#!/usr/bin/env bash
# Everything a machine with an NVIDIA GPU can tell of the kernels and of the engine on them.
set -uo pipefail
usage() {
  cat <<'TEXT'
usage: bench/gpu/run.sh [--phases LIST] [--out DIR] [--quick | --full] [--minutes N] [--list] [options]

For Linux with nvcc; needs neither Node.js nor CMake nor a network. Without a device it runs the phases that need none and says
which were skipped and why. A phase that fails or takes too long does not stop the others.

  --phases LIST   only these, comma-separated; --list shows all, in the order in which they run
  --out DIR       results and logs (bench/results/gpu-<date>)
  --quick         fewer shapes and sizes, shorter limits
  --full          also random weights of the 8B shape (16 GB on disk) and every kernel at every shape
  --minutes N     for everything: what is left for a phase is its limit, and without any it is skipped (8)
  --arch NAME     to build for (that of the device, or sm_90a)
  --lab FILE      a lab that is built already
  --temporary DIR for random weights, 3 GB and with --full 16 GB (the system's)
  --node FILE     Node.js, or node.xz as bench/gpu/pack.sh packs it (bench/gpu/node.xz, or node in PATH)
  --python FILE   with PyTorch for CUDA (python3)

At the end: a table, and DIR/summary.json with machine, device, driver, date, commit and what became of each phase.
Exit code: 0 when all phases that ran have passed and one that needs a device did, 1 when something failed, 2 when nothing
ran on a device. A goal that is missed is no failure: the table says how many hold.
TEXT
}
cd "$(dirname "$0")/../.." || exit 1

# name | seconds at most | what it needs | what it does
PHASES='build|300|nvcc|compiles the lab and the CUDA library for the device
floors|20|lab|bytes, operations and least times of the kernels
invariance|60|device|bits of rows between launches of different sizes, and of equal rows at different places of a matrix tile
parity|90|device|an engine beside the oracle of the CPU: KV, log-probabilities, drafts
memcheck|60|device|compute-sanitizer over every kernel and an engine, small shapes
lossless|150|device|ids, log-probabilities and KV of 33 requests: alone, together, plain, drafted
bandwidth|20|device|copy and read, the limits that the shares below refer to
steps|60|device|plain decode steps, and verification of 2 to 64 rows
drafts|60|device|draft rounds at beam width 1 to 64
rounds|120|device|whole rounds of 1 to 64 requests, acceptance simulated at 2, 3, 3.5 and 4 tokens per step
goals|10|lab|the goals beside what was measured
kernels|120|device|every kernel: time, GB/s, share of the copy bandwidth
racecheck|60|device|compute-sanitizer again, for shared memory
initcheck|60|device|the same for memory that was never written
synccheck|60|device|the same for barriers
node|60|node|through the addon: ids and tokens per second of plain, fixed and adaptive drafting, delay of the event loop
peer|120|torch|plain decoding in PyTorch at the same shapes
tables|180|vitest|the case tables of the tests on the device'

out=bench/results/gpu-$(date +%F) arch= lab=build/lab/lab own_lab=1 phases= quick= full= minutes=8 temporary= node= python=python3
while [ $# -gt 0 ]; do
  case $1 in
    --out) out=${2:?--out needs a folder}; shift ;;
    --arch) arch=${2:?--arch needs a name}; shift ;;
    --lab) lab=${2:?--lab needs a file} own_lab=; shift ;;
    --phases) phases=${2:?--phases needs a list}; shift ;;
    --minutes) minutes=${2:?--minutes needs a number}; shift ;;
    --temporary) temporary=${2:?--temporary needs a folder}; shift ;;
    --node) node=${2:?--node needs a file}; shift ;;
    --python) python=${2:?--python needs a file}; shift ;;
    --quick) quick=1 ;;
    --full) full=1 ;;
    --list) sed 's/|.*|/|/' <<<"$PHASES" | while IFS='|' read -r name what; do printf '%-11s %s\n' "$name" "$what"; done; exit ;;
    --help) usage; exit ;;
    *) usage >&2; exit 64 ;;
  esac
  shift
done
known=" $(cut -d'|' -f1 <<<"$PHASES" | tr '\n' ' ')"
for phase in ${phases//,/ }; do
  case $known in *" $phase "*) ;; *) echo "unknown phase $phase; --list shows them" >&2; exit 64 ;; esac
done
case $minutes in '' | *[!0-9]*) echo "--minutes needs a number" >&2; exit 64 ;; esac

mkdir -p "$out" || exit 1
out=$(cd "$out" && pwd)
names=() results=() reasons=() spent=()
# note NAME RESULT REASON SECONDS
note() { names+=("$1") results+=("$2") reasons+=("$3") spent+=("$4"); }
on_device=0 # phases that ran on it
has_lab=

# sm_ name of the first device, as nvidia-smi tells its compute capability.
device_arch() {
  local capability
  capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -d '. ') || return 1
  [ -n "$capability" ] || return 1
  [ "$capability" = 90 ] && capability=90a
  echo "sm_$capability"
}
query() { nvidia-smi --query-gpu="$1" --format=csv,noheader 2>/dev/null | head -n 1; }
device=
found_arch=$(device_arch) && device=$(query name)

# What a phase runs; its output goes to a log. 3: it ran, and not all goals hold.
shapes() { # of measurements
  if [ -n "$quick" ]; then echo 8B; else echo ""; fi
}
run_lossless() {
  local sizes=1,2,3,4,5,8,9,16,17,32,33 folder=()
  [ -n "$temporary" ] && folder=(--temporary "$temporary")
  [ -n "$quick" ] && sizes=1,5,33
  "$lab" lossless --sizes "$sizes" --json "$out/lossless.json" || return 1
  # Proof that the check can fail.
  if "$lab" lossless --sizes 9 --tokens 24 --plant seed >"$out/lossless-planted.log" 2>&1; then
    echo "a planted fault was not noticed"
    return 1
  fi
  [ -n "$quick" ] && return
  "$lab" lossless --model 1B --sizes "$sizes" --json "$out/lossless-1B.json" "${folder[@]}" || return 1
  [ -n "$full" ] || return 0
  "$lab" lossless --model 8B --sizes 1,4,16,33 --json "$out/lossless-8B.json" "${folder[@]}"
}
run_sanitizer() {
  compute-sanitizer --error-exitcode 9 --tool "$1" "$lab" once --model tiny || return 1
  [ -n "$quick" ] && return
  compute-sanitizer --error-exitcode 9 --tool "$1" "$lab" lossless --model tiny --sizes 1,3 --tokens 5
}
run_node() {
  local binary=$node_found seconds=3
  [ -n "$quick" ] && seconds=1
  if [[ $binary == *.xz ]]; then
    xz -dc "$binary" >"$out/node" || return 1
    chmod +x "$out/node"
    binary=$out/node
  fi
  if [ ! -e build/Release/redrafter_cuda.so ]; then cp build/lab/redrafter_cuda.so build/Release/ || return 1; fi
  "$binary" dist/cli/main.js info
  "$binary" bench/gpu/device.mjs --device cuda --seconds $seconds --json "$out/node.json"
  local code=$?
  rm -f "$out/node"
  return $code
}
run_phase() {
  local model
  model=$(shapes)
  case $1 in
    build) bench/lab/build.sh "${arch:-${found_arch:-sm_90a}}" "$lab" --library build/lab/redrafter_cuda.so ;;
    floors) "$lab" floors ;;
    invariance) "$lab" invariance --model "$model" ;;
    parity) "$lab" parity --json "$out/parity.json" ;;
    lossless) run_lossless ;;
    bandwidth) "$lab" bandwidth --json "$out/bandwidth.json" ;;
    steps | drafts) "$lab" "$1" --model "$model" --json "$out/$1.json" ;;
    rounds) "$lab" rounds --model "$model" --json "$out/rounds.json" ;;
    goals)
      local files=()
      for file in steps rounds; do [ -e "$out/$file.json" ] && files+=("$out/$file.json"); done
      "$lab" goals "${files[@]}" --json "$out/goals.json" ;;
    kernels) if [ -n "$full" ]; then "$lab" kernels --json "$out/kernels.json"; else "$lab" kernels --summary --model "$model" --json "$out/kernels.json"; fi ;;
    memcheck | racecheck | initcheck | synccheck) run_sanitizer "$1" ;;
    node) run_node ;;
    peer) "$python" bench/gpu/peer_torch.py --json "$out/peer.json" ${quick:+--model 8B} --rounds "$out/rounds.json" ;;
    tables) REDRAFTER_TEST_CUDA=1 node node_modules/vitest/vitest.mjs run --project kernels -t 'cuda ' ;;
  esac
}

# Why a phase cannot run, or nothing.
node_found=
missing() {
  local phase=$1 needs=$2
  if [ "$phase" = build ]; then
    command -v nvcc >/dev/null || echo "there is no nvcc"
    return
  fi
  if [ "$needs" = lab ]; then
    [ -n "$has_lab" ] || { echo "the lab was not built"; return; }
    if [ "$phase" = goals ] && [ ! -e "$out/steps.json" ] && [ ! -e "$out/rounds.json" ]; then echo "nothing was measured"; fi
    return
  fi
  [ -n "$device" ] || { echo "nvidia-smi finds no device"; return; }
  case $needs in
    device)
      [ -n "$has_lab" ] || { echo "the lab was not built"; return; }
      case $phase in *check) command -v compute-sanitizer >/dev/null || echo "there is no compute-sanitizer" ;; esac ;;
    node)
      find_node
      [ -n "$node_found" ] || { echo "there is no Node.js: no bench/gpu/node.xz, none in PATH, and --node names none"; return; }
      if [[ $node_found == *.xz ]] && ! command -v xz >/dev/null; then echo "there is no xz to unpack $node_found"; return; fi
      [ -e dist/index.mjs ] && [ -e build/Release/redrafter.node ] && [ -e build/Release/redrafter_cuda_probe ] || { echo "the package is not built (npm run build, or bench/gpu/pack.sh on a machine with Node.js)"; return; }
      [ -e build/Release/redrafter_cuda.so ] || [ -e build/lab/redrafter_cuda.so ] || echo "the CUDA library was not built" ;;
    torch) "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null || echo "$python has no PyTorch with CUDA" ;;
    vitest)
      if ! command -v node >/dev/null || [ ! -d node_modules/vitest ]; then
        echo "there is no Node.js in PATH, or no node_modules/vitest"
      elif [ ! -e build/testing/redrafter_testing.node ] || [ ! -e build/testing/redrafter_cuda.so ]; then
        echo "the addon of the tests and the CUDA library are not built (npm run build)"
      fi ;;
  esac
}
find_node() {
  if [ -n "$node" ]; then node_found=$node
  elif [ -e bench/gpu/node.xz ]; then node_found=bench/gpu/node.xz
  else node_found=$(command -v node); fi
}

while IFS='|' read -r name limit needs what; do
  # Whatever was asked for, the lab is built for it, but where --lab names one.
  if [ "$name" = build ]; then
    if [ -z "$own_lab" ]; then [ -x "$lab" ] && has_lab=1; continue; fi
  elif [ -n "$phases" ] && [[ ,$phases, != *",$name,"* ]]; then
    continue
  fi
  why=$(missing "$name" "$needs")
  left=$((60 * minutes - SECONDS))
  if [ -z "$why" ] && [ $left -le 0 ]; then why="no time left of $minutes minutes (--minutes)"; fi
  if [ -n "$why" ]; then note "$name" skipped "$why" 0; continue; fi
  [ "$needs" = node ] && find_node
  [ -n "$quick" ] && [ "$name" != build ] && limit=$(((limit + 1) / 2))
  [ $left -lt "$limit" ] && limit=$left
  echo "== $name: $what"
  start=$SECONDS
  export -f run_phase run_lossless run_sanitizer run_node shapes
  export out lab quick full arch found_arch temporary node_found python
  timeout --kill-after=5 "$limit" bash -c 'run_phase "$1"' run_phase "$name" >"$out/$name.log" 2>&1 </dev/null
  code=$?
  seconds=$((SECONDS - start))
  tail -n 4 "$out/$name.log"
  case $code in
    0)
      [ "$name" = build ] && has_lab=1
      note "$name" passed "" $seconds ;;
    3) # goals that do not hold
      note "$name" passed "$(tail -n 1 "$out/$name.log")" $seconds ;;
    124 | 137) note "$name" failed "took longer than $limit s, see $name.log" $seconds ;;
    *) note "$name" failed "exit code $code, see $name.log" $seconds ;;
  esac
  case $needs in device | node | torch | vitest) on_device=$((on_device + 1)) ;; esac
done <<<"$PHASES"

quote() { printf '"%s"' "$(printf %s "$1" | tr '\n\t' '  ' | sed 's/\\/\\\\/g; s/"/\\"/g')"; }
commit=$(cat bench/gpu/COMMIT 2>/dev/null || git rev-parse HEAD 2>/dev/null || echo unknown)
{
  echo "{"
  echo " \"date\": \"$(date -u +%FT%TZ)\","
  echo " \"commit\": $(quote "$commit"),"
  echo " \"machine\": $(quote "$(uname -srm); $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1); $(nproc) cores"),"
  echo " \"device\": $(quote "$device"),"
  echo " \"driver\": $(quote "$(query driver_version)"),"
  echo " \"nvcc\": $(quote "$(nvcc --version 2>/dev/null | sed -n 's/.*release \([^,]*\),.*/\1/p')"),"
  echo " \"phases\": ["
  for i in "${!names[@]}"; do
    [ "$i" = $((${#names[@]} - 1)) ] && comma= || comma=,
    echo "  {\"phase\": $(quote "${names[$i]}"), \"result\": $(quote "${results[$i]}"), \"why\": $(quote "${reasons[$i]}"), \"seconds\": ${spent[$i]}}$comma"
  done
  echo " ]"
  echo "}"
} >"$out/summary.json"

echo
failures=0
for i in "${!names[@]}"; do
  printf '%-8s %-11s %4s s  %s\n' "${results[$i]}" "${names[$i]}" "${spent[$i]}" "${reasons[$i]}"
  [ "${results[$i]}" = failed ] && failures=$((failures + 1))
done
echo "${device:-no device}; $out/summary.json"
[ $failures -gt 0 ] && exit 1
[ $on_device -gt 0 ] || exit 2
