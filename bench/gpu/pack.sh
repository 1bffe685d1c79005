#!/usr/bin/env bash
set -euo pipefail
usage() {
  cat <<'TEXT'
usage: bench/gpu/pack.sh [--out FILE] [--node FILE] [--node-only]

Packs what bench/gpu/run.sh needs on a machine with a GPU but neither Node.js nor a network: sources, the built package with
its addon, the bundled model, and Node.js itself, stripped and compressed. FILE: build/gpu-pack.tar. There:

  tar xf gpu-pack.tar && redrafter/bench/gpu/run.sh

The CUDA library is not packed: nvcc builds it there, for the device that is found. --node-only: no tar, only Node.js as
bench/gpu/node.xz, for a machine that gets this working tree anyway (with dist/, build/Release/ and node_modules/).
TEXT
}
cd "$(dirname "$0")/../.."
out=build/gpu-pack.tar node=$(command -v node || true) node_only=
while [ $# -gt 0 ]; do
  case $1 in
    --out) out=${2:?--out needs a file}; shift ;;
    --node) node=${2:?--node needs a file}; shift ;;
    --node-only) node_only=1 ;;
    --help) usage; exit ;;
    *) usage >&2; exit 64 ;;
  esac
  shift
done
[ -n "$node" ] || { echo "there is no Node.js in PATH; name one with --node" >&2; exit 1; }
node=$(readlink -f "$node")

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
pack_node() {
  strip -o "$stage/node" "$node" 2>/dev/null || cp "$node" "$stage/node"
  xz -T0 -6 -c "$stage/node" >"$1"
  echo "node.xz: $(($(wc -c <"$1") >> 20)) MiB"
}
if [ -n "$node_only" ]; then
  pack_node "$stage/node.xz"
  mv "$stage/node.xz" bench/gpu/node.xz
  exit
fi
for needed in dist/index.mjs build/Release/redrafter.node build/Release/redrafter_cuda_probe; do
  [ -e "$needed" ] || { echo "$needed is missing: npm run build" >&2; exit 1; }
done
root=$stage/redrafter
mkdir -p "$root/build/Release"
git ls-files -z -- bench native cmake models CMakeLists.txt package.json LICENSE ':!native/testing' ':!bench/results' |
  xargs -0 cp --parents -t "$root"
git rev-parse HEAD >"$root/bench/gpu/COMMIT"
pack_node "$root/bench/gpu/node.xz"
cp -r dist "$root/"
# The binary that carries its C++ runtime, where this clone can link it.
addon=build/Release/redrafter.node
if [ -e build/CMakeCache.txt ] && cmake --build build --target redrafter_portable >&2; then addon=build/portable/redrafter.node; fi
cp "$addon" "$root/build/Release/redrafter.node"
cp build/Release/redrafter_cuda_probe "$root/build/Release/"
npm ls --omit=dev --all --parseable 2>/dev/null | sed "s|^$PWD/||" | grep '^node_modules/' | sort -u |
  while read -r module; do cp -r --parents "$module" "$root/"; done
rm -rf "$root"/node_modules/*/node_modules/.bin
mkdir -p "$(dirname "$out")"
tar -cf "$out" --owner=0 --group=0 -C "$stage" redrafter
echo "$out: $(($(wc -c <"$out") >> 20)) MiB"
