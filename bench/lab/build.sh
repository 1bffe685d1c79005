#!/usr/bin/env bash
set -euo pipefail
usage() {
  cat <<'TEXT'
usage: bench/lab/build.sh [ARCH [OUTPUT]] [--library FILE]

Builds the lab for one architecture (sm_90a) with nvcc and a C++ compiler alone; OUTPUT: build/lab/lab. With --library also
the CUDA library that the addon opens, out of the same objects: build/Release/redrafter_cuda.so belongs beside redrafter.node.
TEXT
}
cd "$(dirname "$0")/../.."
arguments=() library=
while [ $# -gt 0 ]; do
  case $1 in
    --help) usage; exit ;;
    --library) library=${2:?--library needs a file}; shift ;;
    -*) usage >&2; exit 64 ;;
    *) arguments+=("$1") ;;
  esac
  shift
done
arch=${arguments[0]:-sm_90a}
output=${arguments[1]:-build/lab/lab}
objects=$(dirname "$output")/objects-$arch
mkdir -p "$objects"

# The files that CMakeLists.txt lists between "NAME(WORD" or "set(WORD" and the bracket that ends the list.
listed() { sed -n "/($1\\b/,/)/p" CMakeLists.txt | grep -oE 'native/[a-z_/]+\.(cc|cu)'; }
version=$(sed -n 's/^  "version": "\(.*\)",$/\1/p' package.json)
common=(-Inative -Ibench/lab -Ibench/ops "-DREDRAFTER_VERSION=\"$version\"")
cuda=("${common[@]}" -std=c++20 -O3 -fmad=false --expt-relaxed-constexpr -Werror all-warnings -Xcompiler -Wall,-Wextra,-fPIC
      "-gencode=arch=compute_${arch#sm_},code=$arch")
host=("${common[@]}" -std=c++20 -O3 -ffp-contract=off -fPIC -Wall -Wextra -Werror)
case $(uname -m) in
  x86_64) levels="base avx2 avx512 avx512vnni" ;;
  aarch64) levels="base neon" ;;
  *) levels=base ;;
esac
# As CMakeLists.txt has them.
declare -A level_flags=([base]="" [neon]="" [avx2]="-mavx2 -mfma -mf16c"
  [avx512]="-mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx2 -mfma -mf16c -Wno-maybe-uninitialized -Wno-uninitialized")
level_flags[avx512vnni]="${level_flags[avx512]} -mavx512vnni"

failed=$objects/failed
rm -f "$failed"
# compile SOURCE OBJECT COMMAND...: beside others, unless the object is newer than the source and every header.
compile() {
  local source=$1 object=$2
  shift 2
  if [ -e "$object" ] && [ "$object" -nt "$source" ] &&
     [ -z "$(find native bench/lab bench/ops \( -name '*.h' -o -name '*.cuh' \) -newer "$object")" ]; then return; fi
  while [ "$(jobs -rp | wc -l)" -ge "$(nproc)" ]; do wait -n || true; done
  { "$@" -c "$source" -o "$object" || { rm -f "$object"; echo "$source" >>"$failed"; }; } &
}
name() { echo "$objects/$(echo "$1" | tr / -)${2:-}.o"; }

kernels=() rest=()
for source in $(listed CUDA_SOURCES); do
  kernels+=("$(name "$source")")
  compile "$source" "$(name "$source")" nvcc "${cuda[@]}"
done
for source in bench/lab/*.cu; do
  rest+=("$(name "$source")")
  compile "$source" "$(name "$source")" nvcc "${cuda[@]}"
done
if [ -n "$library" ]; then
  entry=$(name native/ops/cuda_entry.cu)
  compile native/ops/cuda_entry.cu "$entry" nvcc "${cuda[@]}"
fi
with_levels=()
for level in $levels; do
  with_levels+=("-DREDRAFTER_WITH_${level^^}")
  sources=SIMD_SOURCES
  [ "$level" = avx512vnni ] && sources=PRODUCT_SOURCES
  for source in $(listed $sources) bench/ops/instructions_simd.cc; do
    rest+=("$(name "$source" "-$level")")
    # shellcheck disable=SC2086 # several flags
    compile "$source" "$(name "$source" "-$level")" "${CXX:-g++}" "${host[@]}" "-DREDRAFTER_ISA_${level^^}" ${level_flags[$level]}
  done
done
for source in $(listed redrafter_ops) $(listed redrafter_core) bench/lab/*.cc bench/ops/machine.cc; do
  [ "$source" = bench/lab/timing_emulated.cc ] && continue
  rest+=("$(name "$source")")
  own=()
  case $source in native/ops/ops.cc | bench/ops/machine.cc) own=("${with_levels[@]}") ;; esac
  compile "$source" "$(name "$source")" "${CXX:-g++}" "${host[@]}" "${own[@]}"
done
wait
if [ -e "$failed" ]; then
  echo "did not compile: $(tr '\n' ' ' <"$failed")" >&2
  exit 1
fi
nvcc -cudart static "${kernels[@]}" "${rest[@]}" -lpthread -ldl -o "$output"
echo "$output"
if [ -n "$library" ]; then
  mkdir -p "$(dirname "$library")"
  nvcc -shared -cudart static -Xcompiler -static-libstdc++ "${kernels[@]}" "$entry" -o "$library" \
    -Xlinker --version-script=native/ops/cuda_exports.map -Xlinker --gc-sections -Xlinker -s
  echo "$library"
fi
