#!/usr/bin/env bash
# Builds the lab with nvcc alone, for one architecture: bench/lab/build.sh [sm_90a [OUTPUT]]
set -euo pipefail
cd "$(dirname "$0")/../.."
if [ "${1:-}" = --help ]; then sed -n 2p "$0"; exit; fi
arch=${1:-sm_90a}
output=${2:-build/lab/lab}
objects=$(dirname "$output")/objects-$arch
mkdir -p "$objects"
includes=(-Inative -Ibench/lab)
cuda=(-std=c++20 -O3 -fmad=false --expt-relaxed-constexpr -Werror all-warnings -Xcompiler -Wall,-Wextra
      "-gencode=arch=compute_${arch#sm_},code=$arch")
host=(native/base/threads.cc native/kv/cache.cc native/model/forward.cc native/model/rope_table.cc native/ops/attention.cc
      native/ops/sample.cc native/spec/accept.cc native/spec/logprobs.cc native/spec/round.cc native/spec/round_batch.cc native/spec/round_graphs.cc native/spec/drafters/recurrent.cc)
compile() {
  case $1 in
    *.cu) nvcc "${cuda[@]}" "${includes[@]}" -c "$1" -o "$2" ;;
    *) "${CXX:-g++}" -std=c++20 -O2 -Wall -Wextra -Werror "${includes[@]}" -c "$1" -o "$2" ;;
  esac
}
for source in $(ls native/ops/*.cu | grep -v cuda_entry.cu) bench/lab/*.cu bench/lab/*.cc "${host[@]}"; do
  object=$objects/$(echo "$source" | tr / -).o
  # A header may have changed: newer than every header or it is built again.
  if [ -e "$object" ] && [ "$source" -ot "$object" ] &&
     [ -z "$(find native bench/lab -name '*.h' -newer "$object" -o -name '*.cuh' -newer "$object")" ]; then continue; fi
  while [ "$(jobs -rp | wc -l)" -ge "$(nproc)" ]; do wait -n; done
  compile "$source" "$object" &
done
while [ -n "$(jobs -rp)" ]; do wait -n; done
nvcc -cudart static "$objects"/*.o -o "$output"
echo "$output"
