/** GPT-2's map from bytes to printable characters, reversed: byte-level vocabularies spell tokens with it. */
const BYTE_OF: ReadonlyMap<string, number> = (() => {
  const map = new Map<string, number>();
  let next = 256;
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    map.set(String.fromCharCode(printable ? byte : next++), byte);
  }
  return map;
})();

const CHARACTER_OF: readonly string[] = [...BYTE_OF].sort((a, b) => a[1] - b[1]).map(([character]) => character);

const utf8 = new TextEncoder();

/** The bytes of a token of a byte-level vocabulary; a token outside the map stands for its own UTF-8. */
export function tokenBytes(token: string): Uint8Array {
  const bytes = new Uint8Array(token.length);
  for (let i = 0; i < token.length; i++) {
    const byte = BYTE_OF.get(token.charAt(i));
    if (byte === undefined) return utf8.encode(token);
    bytes[i] = byte;
  }
  return bytes;
}

/** Bytes as a byte-level vocabulary spells them. */
export function byteLevelText(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => CHARACTER_OF[byte]).join('');
}
