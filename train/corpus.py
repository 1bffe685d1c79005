"""The corpus: TypeScript declaration files of the dev dependencies, de-duplicated, with whole files held out.

    python3 train/corpus.py            print what is in the corpus
    python3 train/corpus.py --prompts  also write models/ts-declarations/prompts.json from the held-out files
"""
import argparse
import hashlib
import json
import os
import random
import tempfile

REPO = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ROOTS = ["node_modules/typescript/lib", "node_modules/@types/node"]
HELD_OUT = os.path.join(REPO, "train", "held-out.json")
MODEL_DIR = os.path.join(REPO, "models", "ts-declarations")
RUN_DIR = os.path.join(tempfile.gettempdir(), "train-run")
EOS = "<|endoftext|>"


def use_threads():
    """THREADS in the environment, else all cores. One thread per process is better on a machine with other work: with
    more, every parallel region waits for the thread whose core is taken."""
    import torch
    torch.set_num_threads(int(os.environ.get("THREADS", 0)) or os.cpu_count())


def load_documents():
    """Returns [(path, text)] in a fixed order; the first of equal contents stays, line ends become \\n."""
    paths = []
    for root in ROOTS:
        for folder, _, names in os.walk(os.path.join(REPO, root)):
            paths += [os.path.relpath(os.path.join(folder, n), REPO) for n in names if n.endswith(".d.ts")]
    documents, seen = [], set()
    for path in sorted(paths):
        with open(os.path.join(REPO, path), encoding="utf-8-sig", newline="") as f:
            text = f.read().replace("\r\n", "\n")
        digest = hashlib.sha256(text.encode()).hexdigest()
        if digest not in seen:
            seen.add(digest)
            documents.append((path, text))
    return documents


def split_documents():
    """Returns (train, held_out) lists of (path, text). `skip` entries of held-out.json go to neither list."""
    with open(HELD_OUT) as f:
        lists = json.load(f)
    held, skip = set(lists["heldOut"]), set(lists["skip"])
    documents = load_documents()
    missing = held - {p for p, _ in documents}
    if missing:
        raise SystemExit("held-out files not found (npm ci first): " + ", ".join(sorted(missing)))
    train = [(p, t) for p, t in documents if p not in held and p not in skip]
    return train, [(p, t) for p, t in documents if p in held]


def other_documents():
    """Declaration files of the other installed packages: text the target has never seen, for drafter training only."""
    held = {hashlib.sha256(t.encode()).hexdigest() for _, t in load_documents()}
    documents = []
    for folder, _, names in sorted(os.walk(os.path.join(REPO, "node_modules"))):
        for name in sorted(names):
            path = os.path.relpath(os.path.join(folder, name), REPO)
            if name.endswith((".d.ts", ".d.mts")) and not path.startswith(tuple(ROOTS)) and not os.path.islink(path):
                with open(os.path.join(REPO, path), encoding="utf-8-sig", errors="replace", newline="") as f:
                    text = f.read().replace("\r\n", "\n")
                digest = hashlib.sha256(text.encode()).hexdigest()
                if digest not in held and len(text) < 400000:
                    held.add(digest)
                    documents.append((path, text))
    return documents


def cut_prompts(held_out, encode, count, seed):
    """Cuts `count` prompts at line starts, without overlap, spread over the files in proportion to the square root
    of their size. `encode` turns text into token ids (for the length limits)."""
    rng = random.Random(seed)
    weights = [len(t) ** 0.5 for _, t in held_out]
    shares = [max(1, round(count * w / sum(weights))) for w in weights]
    prompts = []
    for (path, text), share in zip(held_out, shares):
        lines = text.splitlines(keepends=True)
        zone = len(lines) // share
        for k in range(share):
            want = rng.choice([50, 80, 120, 160, 220, 300, 380])
            # The first prompt of a file is its very beginning; the others start at any line of their zone.
            start = k * zone + (rng.randrange(max(1, zone // 3)) if k else 0)
            while start < (k + 1) * zone and not lines[start].strip():
                start += 1
            chosen, size = "", 0
            for line in lines[start:(k + 1) * zone]:
                size += len(encode(line))
                if size > 400:
                    break
                chosen += line
                if size >= want:
                    break
            if chosen.strip() and len(encode(chosen)) >= 40:
                stem = path.replace("node_modules/", "").replace("typescript/lib/", "").replace("@types/", "")
                name = stem.replace(".d.ts", "").replace("/", "-")
                prompts.append({"name": f"{name}:{start + 1}", "text": chosen})
    return prompts


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", action="store_true", help="write prompts.json (needs the tokenizer)")
    parser.add_argument("--count", type=int, default=72, help="how many prompts to aim for")
    parser.add_argument("--seed", type=int, default=1, help="seed of the prompt cuts")
    args = parser.parse_args()
    train, held = split_documents()
    size = lambda documents: sum(len(t.encode()) for _, t in documents)
    print(f"train {len(train)} files {size(train)} bytes; held out {len(held)} files {size(held)} bytes "
          f"({100 * size(held) / (size(train) + size(held)):.2f} %)")
    for path, text in held:
        print(f"  held out {len(text.encode()):7d} {path}")
    if args.prompts:
        from bpe import Tokenizer
        tokenizer = Tokenizer.load(os.path.join(MODEL_DIR, "tokenizer.json"))
        prompts = cut_prompts(held, tokenizer.encode, args.count, args.seed)
        with open(os.path.join(MODEL_DIR, "prompts.json"), "w", encoding="utf-8") as f:
            json.dump(prompts, f, ensure_ascii=False, indent=1)
            f.write("\n")
        lengths = sorted(len(tokenizer.encode(p["text"])) for p in prompts)
        print(f"{len(prompts)} prompts of {lengths[0]} to {lengths[-1]} tokens, median {lengths[len(lengths) // 2]}")


if __name__ == "__main__":
    main()
