/** XXH64 of less than 2^31 bytes, seed 0, with BigInt: independent of the native one. */
export function xxh64(data: Buffer): bigint {
  const mask = 2n ** 64n - 1n;
  const [p1, p2, p3, p4, p5] = [
    0x9e3779b185ebca87n,
    0xc2b2ae3d27d4eb4fn,
    0x165667b19e3779f9n,
    0x85ebca77c2b2ae63n,
    0x27d4eb2f165667c5n,
  ] as const;
  const mul = (a: bigint, b: bigint): bigint => (a * b) & mask;
  const rotl = (a: bigint, n: bigint): bigint => ((a << n) | (a >> (64n - n))) & mask;
  const round = (lane: bigint, input: bigint): bigint => mul(rotl((lane + mul(input, p2)) & mask, 31n), p1);
  const lanes = [(p1 + p2) & mask, p2, 0n, -p1 & mask];
  let at = 0;
  for (; at + 32 <= data.length; at += 32) {
    for (let i = 0; i < 4; i++) lanes[i] = round(lanes[i] ?? 0n, data.readBigUInt64LE(at + 8 * i));
  }
  let hash: bigint = p5;
  if (data.length >= 32) {
    hash = [1n, 7n, 12n, 18n].reduce((sum, n, i) => sum + rotl(lanes[i] ?? 0n, n), 0n) & mask;
    for (const lane of lanes) hash = (mul(hash ^ round(0n, lane), p1) + p4) & mask;
  }
  hash = (hash + BigInt(data.length)) & mask;
  for (; at + 8 <= data.length; at += 8) {
    hash = (mul(rotl(hash ^ round(0n, data.readBigUInt64LE(at)), 27n), p1) + p4) & mask;
  }
  if (at + 4 <= data.length) {
    hash = (mul(rotl(hash ^ mul(BigInt(data.readUInt32LE(at)), p1), 23n), p2) + p3) & mask;
    at += 4;
  }
  for (; at < data.length; at++) hash = mul(rotl(hash ^ mul(BigInt(data[at] ?? 0), p5), 11n), p1);
  hash = mul(hash ^ (hash >> 33n), p2);
  hash = mul(hash ^ (hash >> 29n), p3);
  return hash ^ (hash >> 32n);
}
