"""Byte-level BPE: a trainer, a tokenizer, and Hugging Face files that other libraries load.

    python3 train/bpe.py --vocab 2048     train on the training files, write the tokenizer files of the model
"""
import argparse
import heapq
import json
import os
import re
import sys
import time
import unicodedata
from collections import Counter, defaultdict

import corpus

# The white space of JavaScript's \s: the npm tokenizer library splits with JavaScript regular expressions.
SPACE = "\\t-\\r \\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000\\ufeff"
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %}{{ message['content'] }}\n"
    "{% else %}{{ '// ' + message['content'].replace('\n', '\n// ') }}\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '\n' }}{% endif %}")


def _class(prefix):
    """Character-class source for a Unicode major category (Python's re has no \\p{..})."""
    ranges, start = [], None
    for c in range(sys.maxunicode + 2):
        inside = c <= sys.maxunicode and unicodedata.category(chr(c)).startswith(prefix)
        if inside and start is None:
            start = c
        elif not inside and start is not None:
            ranges.append(f"\\U{start:08x}-\\U{c - 1:08x}")
            start = None
    return "".join(ranges)


_pattern = None


def pretokens(text):
    """Splits text as the ByteLevel pre-tokenizer with use_regex does."""
    global _pattern
    if _pattern is None:
        letter, number = _class("L"), _class("N")
        _pattern = re.compile(
            f"'s|'t|'re|'ve|'m|'ll|'d| ?[{letter}]+| ?[{number}]+| ?[^{SPACE}{letter}{number}]+"
            f"|[{SPACE}]+(?![^{SPACE}])|[{SPACE}]+")
    return _pattern.findall(text)


def byte_alphabet():
    """GPT-2's printable character for each byte."""
    keep = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    table, extra = {b: chr(b) for b in keep}, 0
    for b in range(256):
        if b not in table:
            table[b] = chr(256 + extra)
            extra += 1
    return table


BYTES = byte_alphabet()


def train_merges(word_counts, merges_wanted, log=print):
    """Learns merges over {bytes: count}; pairs are kept in a lazy heap and updated incrementally. Ties: smallest pair."""
    words = [[BYTES[b] for b in w] for w in word_counts]
    counts = list(word_counts.values())
    pair_count, pair_words = Counter(), defaultdict(set)
    for i, symbols in enumerate(words):
        for pair in zip(symbols, symbols[1:]):
            pair_count[pair] += counts[i]
            pair_words[pair].add(i)
    heap = [(-n, pair) for pair, n in pair_count.items()]
    heapq.heapify(heap)
    merges, began = [], time.time()
    while len(merges) < merges_wanted and heap:
        n, pair = heapq.heappop(heap)
        if pair_count.get(pair, 0) != -n:
            if pair_count.get(pair, 0) > 0:
                heapq.heappush(heap, (-pair_count[pair], pair))
            continue
        if -n < 2:
            break
        merges.append(pair)
        joined, touched = pair[0] + pair[1], set()
        for i in pair_words.pop(pair):
            old = words[i]
            for p in zip(old, old[1:]):
                pair_count[p] -= counts[i]
            words[i] = new = merge_symbols(old, pair, joined)
            for p in zip(new, new[1:]):
                pair_count[p] += counts[i]
                pair_words[p].add(i)
                touched.add(p)
        pair_count.pop(pair, None)
        for p in touched:
            if p != pair:
                heapq.heappush(heap, (-pair_count[p], p))
        if len(merges) % 500 == 0:
            log(f"  {len(merges)} merges, last {joined!r} x{-n}, {time.time() - began:.1f} s")
    return merges


def merge_symbols(symbols, pair, joined):
    out, i = [], 0
    while i < len(symbols):
        if i + 1 < len(symbols) and symbols[i] == pair[0] and symbols[i + 1] == pair[1]:
            out.append(joined)
            i += 2
        else:
            out.append(symbols[i])
            i += 1
    return out


class Tokenizer:
    """`vocab` maps symbol strings to ids, `merges` is the ordered list of pairs."""

    def __init__(self, vocab, merges):
        self.vocab, self.merges = vocab, [tuple(m) for m in merges]
        self.rank = {m: i for i, m in enumerate(self.merges)}
        self.eos = vocab[corpus.EOS]
        self.size = len(vocab)
        to_byte = {c: b for b, c in BYTES.items()}
        self.bytes_of = {i: bytes(to_byte[c] for c in s) for s, i in vocab.items() if i != self.eos}
        self.bytes_of[self.eos] = b""
        self.cache = {}

    @classmethod
    def load(cls, path):
        with open(path, encoding="utf-8") as f:
            data = json.load(f)
        vocab = dict(data["model"]["vocab"])
        vocab.update({t["content"]: t["id"] for t in data["added_tokens"]})
        return cls(vocab, data["model"]["merges"])

    def encode(self, text):
        """Ordinary text only: the special token is not recognised inside it."""
        ids = []
        for piece in pretokens(text):
            known = self.cache.get(piece)
            if known is None:
                symbols = [BYTES[b] for b in piece.encode()]
                while len(symbols) > 1:
                    best = min(zip(symbols, symbols[1:]), key=lambda p: self.rank.get(p, 1 << 30))
                    if best not in self.rank:
                        break
                    symbols = merge_symbols(symbols, best, best[0] + best[1])
                known = self.cache[piece] = [self.vocab[s] for s in symbols]
            ids += known
        return ids

    def decode(self, ids):
        return b"".join(self.bytes_of[int(i)] for i in ids).decode("utf-8", "replace")


def write_files(folder, merges, context):
    vocab = {corpus.EOS: 0}
    for b in sorted(BYTES):
        vocab[BYTES[b]] = len(vocab)
    for a, b in merges:
        vocab.setdefault(a + b, len(vocab))
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": 0, "content": corpus.EOS, "single_word": False, "lstrip": False, "rstrip": False,
                          "normalized": False, "special": True}],
        "normalizer": None, "pre_tokenizer": byte_level, "post_processor": None, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": vocab, "merges": [list(m) for m in merges]}}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": corpus.EOS, "eos_token": corpus.EOS,
              "add_bos_token": False, "add_eos_token": False, "clean_up_tokenization_spaces": False,
              "model_max_length": context, "chat_template": CHAT_TEMPLATE}
    generation = {"bos_token_id": 0, "eos_token_id": 0, "max_new_tokens": 256, "do_sample": False}
    for name, value in [("tokenizer.json", tokenizer), ("tokenizer_config.json", config),
                        ("generation_config.json", generation)]:
        with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
            json.dump(value, f, ensure_ascii=False, indent=None if name == "tokenizer.json" else 1)
            f.write("\n")
    return vocab


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocab", type=int, default=2048, help="vocabulary size, the special token included")
    parser.add_argument("--out", default=corpus.MODEL_DIR, help="folder of the tokenizer files")
    parser.add_argument("--context", type=int, default=2048, help="model_max_length to write")
    args = parser.parse_args()
    train, held = corpus.split_documents()
    words = Counter()
    for _, text in train:
        words.update(pretokens(text))
    print(f"{sum(words.values())} pre-tokens, {len(words)} different")
    merges = train_merges({w.encode(): n for w, n in sorted(words.items())}, args.vocab - 257)
    os.makedirs(args.out, exist_ok=True)
    vocab = write_files(args.out, merges, args.context)
    assert len(vocab) == args.vocab, (len(vocab), args.vocab)
    tokenizer = Tokenizer.load(os.path.join(args.out, "tokenizer.json"))
    for name, documents in (("train", train), ("held out", held)):
        tokens = 0
        for path, text in documents:
            ids = tokenizer.encode(text)
            assert tokenizer.decode(ids) == text, path
            tokens += len(ids)
        size = sum(len(t.encode()) for _, t in documents)
        print(f"{name}: {size} bytes, {tokens} tokens, {size / tokens:.3f} bytes per token")


if __name__ == "__main__":
    main()
