// Checks that the npm library @huggingface/tokenizers and train/bpe.py agree on the held-out text.
//   node train/check-tokenizer.mjs          (runs python3 for the other half; PYTHON names another interpreter)
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Tokenizer } from "@huggingface/tokenizers";
import { Template } from "@huggingface/jinja";

const root = fileURLToPath(new URL("..", import.meta.url));
const read = (name) => JSON.parse(readFileSync(`${root}models/ts-declarations/${name}`, "utf8"));
const config = read("tokenizer_config.json");
const tokenizer = new Tokenizer(read("tokenizer.json"), config);

const unusual = [
  "", " ", "\n\n\n", "  leading", "trailing  \n", "tab\tand\r\nCRLF", "naïve café — “quotes” … ½ ² Ⅷ ٣",
  "日本語のテキスト 한국어 текст ελληνικά עברית", "emoji 👩‍👩‍👧‍👦 🏳️‍🌈 \u{1F9D1}\u{1F3FD}", "\u00a0nbsp\u2003em\ufeffbom\u0085nel\u200bzwsp",
  "we're I'll they've it's don't 'S", "e\u0301 combining", "\u0000\u0001\u007f control", "a".repeat(300), "_$snake_case99 x=>y;",
];
const held = readFileSync(`${root}train/held-out.json`, "utf8");
const texts = [...JSON.parse(held).heldOut.map((path) => readFileSync(root + path, "utf8").replaceAll("\r\n", "\n")), ...unusual];

const script =
  "import json, sys; sys.path.insert(0, 'train'); import bpe; t = bpe.Tokenizer.load('models/ts-declarations/tokenizer.json');" +
  "json.dump([t.encode(x) for x in json.load(sys.stdin)], sys.stdout)";
const python = JSON.parse(
  execFileSync(process.env.PYTHON ?? "python3", ["-c", script], { cwd: root, input: JSON.stringify(texts), maxBuffer: 1 << 28 }),
);
let failures = 0;
let tokens = 0;
texts.forEach((text, i) => {
  const { ids } = tokenizer.encode(text);
  tokens += ids.length;
  const same = ids.length === python[i].length && ids.every((id, k) => id === python[i][k]);
  const back = ids.length ? tokenizer.decode(ids, { skip_special_tokens: true, clean_up_tokenization_spaces: false }) === text : text === "";
  if (!same || !back) {
    failures += 1;
    const at = ids.findIndex((id, k) => id !== python[i][k]);
    console.error(`text ${i} (${JSON.stringify(text.slice(0, 40))}): ids ${same ? "agree" : `differ at ${at}`}, round trip ${back}`);
  }
});
const eos = tokenizer.encode("a<|endoftext|>b").ids;
if (!eos.includes(0)) failures += 1, console.error("the special token is not recognised", eos);
const chat = new Template(config.chat_template).render({
  messages: [{ role: "user", content: "An interface\nof a point" }, { role: "assistant", content: "interface Point {}" }, { role: "user", content: "more" }],
  add_generation_prompt: true,
});
console.log(`${texts.length} texts, ${tokens} tokens, ${failures} failures; chat template gives ${JSON.stringify(chat)}`);
process.exit(failures ? 1 : 0);
