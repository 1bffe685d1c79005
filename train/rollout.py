"""Training data for drafters from the frozen target: hidden states and the target's own greedy continuations.

An example is (h, g0, .., g5): h is the post-norm hidden state of a position, g0 the target's greedy choice there, and
g1.. what it would choose next. Two sources:
  text    every position of windows of the training text; six branches roll out in parallel from all positions at once
  greedy  long greedy continuations of training prompts, after a few tokens sampled at temperature 1 so that the
          contexts are new; here the text itself holds the labels
  other   the same from declaration files of other packages, which the target has never seen
Files in --out: <source>-hidden.f16 [N, hidden] and <source>-tokens.i16 [N, 6].
"""
import argparse
import os
import random
import time

import numpy as np
import torch

import bpe
import corpus
import target

DEPTH = 5


def label_window(model, ids):
    """Greedy continuations from every position of ids [batch, time]: (hidden [batch, time, H], tokens [batch, time, 6]).

    Step j feeds, at every position t at once, the token chosen one step before. It sits at position t + j, sees the
    text up to t and the branch's own earlier tokens, never other branches."""
    batch, time_ = ids.shape
    layers = model.model.layers
    branch = [[] for _ in layers]  # per layer: (k, v) of the branch tokens so far, each [batch, heads, time, dim]
    trunk, tokens, first = [], [], None
    blocked = torch.full((time_, time_), float("-inf"), device=ids.device).triu(1)
    current = ids
    for j in range(DEPTH + 1):
        cos, sin = model.cos[j:j + time_], model.sin[j:j + time_]
        x = model.model.embed_tokens(current)
        for i, layer in enumerate(layers):
            attention = layer.self_attn
            q, k, v = attention.project(layer.input_layernorm(x), cos, sin)
            k, v = attention.widen(k), attention.widen(v)
            if j == 0:
                trunk.append((k, v))
            else:
                branch[i].append((k, v))
            k0, v0 = trunk[i]
            scores = [torch.matmul(q, k0.transpose(2, 3)).float() * attention.dim ** -0.5 + blocked]
            scores += [(q * kb).float().sum(-1, keepdim=True) * attention.dim ** -0.5 for kb, _ in branch[i]]
            weights = torch.cat(scores, dim=-1).softmax(-1)
            out = torch.matmul(weights[..., :time_].to(v0.dtype), v0)
            for b, (_, vb) in enumerate(branch[i]):
                out = out + weights[..., time_ + b:time_ + b + 1] * vb
            x = x + attention.finish(out)
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        hidden = model.model.norm(x)
        first = hidden if j == 0 else first
        current = model.lm_head(hidden).argmax(-1)
        tokens.append(current)
    return first, torch.stack(tokens, dim=-1)


def generate(model, prompts, count, sampled=0, generator=None, dtype=torch.float32):
    """Continues prompts (lists of ids) by `count` tokens, the first `sampled` of them drawn at temperature 1, the rest
    greedy. Returns tokens [batch, count] and the hidden state that chose each of them [batch, count, H]."""
    longest = max(map(len, prompts))
    device = model.cos.device
    pads = torch.tensor([longest - len(p) for p in prompts], device=device)
    ids = torch.tensor([[0] * (longest - len(p)) + list(p) for p in prompts], device=device)
    caches = [target.Cache(len(prompts), model.config, longest + count, dtype, device) for _ in model.model.layers]
    hidden = model.step(ids, caches, pads)[:, -1]
    tokens, states = [], []
    for i in range(count):
        logits = model.lm_head(hidden).float()
        chosen = torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0] if i < sampled else logits.argmax(-1)
        tokens.append(chosen)
        states.append(hidden)
        if i + 1 < count:
            hidden = model.step(chosen[:, None], caches, pads)[:, -1]
    return torch.stack(tokens, 1), torch.stack(states, 1)


class Writer:
    """Appends examples; drops those whose root is EOS (nothing is drafted after it)."""

    def __init__(self, folder, source, eos):
        self.files = [open(os.path.join(folder, f"{source}-{kind}"), "wb") for kind in ("hidden.f16", "tokens.i16")]
        self.eos, self.count = eos, 0

    def add(self, hidden, tokens):
        keep = tokens[:, 0] != self.eos
        self.files[0].write(hidden[keep].to(torch.float16).cpu().numpy().tobytes())
        self.files[1].write(tokens[keep].to(torch.int16).cpu().numpy().tobytes())
        self.count += int(keep.sum())
        for f in self.files:
            f.flush()


def make_text(model, stream, writer, args, rng):
    began = time.time()
    while writer.count < args.text and time.time() - began < args.seconds:
        starts = [rng.randrange(len(stream) - args.window) for _ in range(args.batch)]
        ids = torch.from_numpy(np.stack([stream[s:s + args.window] for s in starts])).to(model.cos.device)
        hidden, tokens = label_window(model, ids)
        writer.add(hidden[:, 16:].flatten(0, 1), tokens[:, 16:].flatten(0, 1))
        print(f"text {writer.count} examples, {writer.count / (time.time() - began):.0f}/s", flush=True)


def make_greedy(model, stream, writer, args, rng, source="greedy"):
    generator = torch.Generator(device=model.cos.device).manual_seed(args.seed)
    began = time.time()
    while writer.count < getattr(args, source) and time.time() - began < args.seconds:
        size = rng.choice([32, 64, 128, 192, 256])
        starts = [rng.randrange(len(stream) - size) for _ in range(args.generate_batch)]
        prompts = [stream[s:s + size].tolist() for s in starts]
        sampled = rng.choice([0, 8, 24, 48])
        count = sampled + args.length
        tokens, hidden = generate(model, prompts, count, sampled, generator, torch.bfloat16 if args.bf16 else torch.float32)
        windows = tokens.unfold(1, DEPTH + 1, 1)[:, sampled:]
        # Roots after the end of a document are of no use: nothing is generated there.
        ended = (tokens == model.config["eos_token_id"]).cumsum(1)
        alive = ended[:, sampled:sampled + windows.shape[1]] == 0
        writer.add(hidden[:, sampled:sampled + windows.shape[1]][alive], windows[alive])
        print(f"{source} {writer.count} examples, {writer.count / (time.time() - began):.0f}/s", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=corpus.MODEL_DIR)
    parser.add_argument("--out", default=os.path.join(corpus.RUN_DIR, "rollouts"))
    parser.add_argument("--text", type=int, default=1000000, help="examples wanted from the text")
    parser.add_argument("--greedy", type=int, default=1000000, help="examples wanted from greedy continuations")
    parser.add_argument("--other", type=int, default=1000000, help="examples wanted from continuations of other packages")
    parser.add_argument("--seconds", type=float, default=1e9, help="time limit of each source")
    parser.add_argument("--window", type=int, default=384)
    parser.add_argument("--batch", type=int, default=4, help="windows at once")
    parser.add_argument("--generate-batch", type=int, default=128)
    parser.add_argument("--length", type=int, default=192, help="greedy tokens per prompt")
    parser.add_argument("--no-bf16", dest="bf16", action="store_false", help="compute in fp32 instead of bf16 autocast")
    parser.add_argument("--suffix", default="", help="appended to the source in file names (for a second process, with another seed)")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    corpus.use_threads()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = target.load(args.model, device)
    tokenizer = bpe.Tokenizer.load(os.path.join(args.model, "tokenizer.json"))
    train, _ = corpus.split_documents()
    join = lambda documents: np.concatenate([np.array(tokenizer.encode(t) + [tokenizer.eos]) for _, t in documents])
    os.makedirs(args.out, exist_ok=True)
    with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=args.bf16):
        for source in ("greedy", "text", "other"):
            if getattr(args, source):
                stream = join(corpus.other_documents() if source == "other" else train)
                writer, rng = Writer(args.out, source + args.suffix, tokenizer.eos), random.Random(args.seed)
                if source == "text":
                    make_text(model, stream, writer, args, rng)
                else:
                    make_greedy(model, stream, writer, args, rng, source)


if __name__ == "__main__":
    main()
