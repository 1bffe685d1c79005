#!/usr/bin/env bash
# Builds the lab with nvcc alone, for one architecture: bench/lab/build.sh [sm_90a [OUTPUT]]
set -euo pipefail
cd "$(dirname "$0")/../.."
if [ "${1:-}" = --help ]; then sed -n 2p "$0"; exit; fi
arch=${1:-sm_90a}
output=${2:-build/lab/lab}
objects=$(dirname "$output")/objects-$arch
mkdir -p "$objects"
flags=(-std=c++20 -O3 -fmad=false --expt-relaxed-constexpr -Werror all-warnings -Xcompiler -Wall,-Wextra
       -Inative -Ibench/lab "-gencode=arch=compute_${arch#sm_},code=$arch")
compile() { nvcc "${flags[@]}" -x cu -c "$1" -o "$2"; }
for source in $(ls native/ops/*.cu | grep -v cuda_entry.cu) bench/lab/*.cu bench/lab/*.cc; do
  object=$objects/$(basename "$source").o
  # A header may have changed: newer than every header or it is built again.
  if [ -e "$object" ] && [ "$source" -ot "$object" ] &&
     [ -z "$(find native bench/lab -name '*.h' -newer "$object" -o -name '*.cuh' -newer "$object")" ]; then continue; fi
  while [ "$(jobs -rp | wc -l)" -ge "$(nproc)" ]; do wait -n; done
  compile "$source" "$object" &
done
while [ -n "$(jobs -rp)" ]; do wait -n; done
nvcc -cudart static "$objects"/*.o -o "$output"
echo "$output"
