#!/usr/bin/env python3
"""Plain decoding in PyTorch at the shapes that `lab rounds` measures: what others get on the same device.

A compact Llama in bf16 with random weights: static KV cache, scaled_dot_product_attention over the whole of it with a mask,
one CUDA graph per step. As in the lab, requests have 512 tokens of context and every one decodes a token per step.

  python3 bench/gpu/peer_torch.py [--model NAME] [--batches 1,4,16,64] [--rounds rounds.json] [--json FILE]

On a machine without CUDA it runs on the CPU, without graphs: use --model tiny there. --rounds: the lab's file, for a column
beside. Exits with 2 where PyTorch is missing.
"""

import argparse
import json
import math
import sys
import time

try:
    import torch
    import torch.nn.functional as F
except ImportError as error:
    print(f"peer_torch: {error}", file=sys.stderr)
    sys.exit(2)

# name: hidden, ffn, heads, kv heads, head size, vocabulary, layers, context; as in bench/lab/shapes.h
SHAPES = {
    "Llama-3.1-8B": (4096, 14336, 32, 8, 128, 128256, 32, 512),
    "Vicuna-7B": (4096, 11008, 32, 32, 128, 32000, 32, 512),
    "Llama-3.2-1B": (2048, 8192, 32, 8, 64, 128256, 16, 512),
    "tiny": (64, 160, 4, 2, 24, 300, 2, 48),
}


class Llama:
    """Weights, a cache for `batch` requests, and one step of all of them."""

    def __init__(self, shape, batch, device):
        hidden, ffn, heads, kv_heads, head_dim, vocab, layers, context = shape
        self.heads, self.kv_heads, self.head_dim, self.context = heads, kv_heads, head_dim, context
        self.slots = context + 64
        self.device = device

        def matrix(rows, cols):
            return torch.empty(rows, cols, dtype=torch.bfloat16, device=device).normal_(0, 1 / math.sqrt(cols))

        self.embedding = torch.empty(vocab, hidden, dtype=torch.bfloat16, device=device).normal_()
        self.head = matrix(vocab, hidden)
        self.ones = torch.ones(hidden, dtype=torch.bfloat16, device=device)
        qkv = (heads + 2 * kv_heads) * head_dim
        self.layers = [
            (matrix(qkv, hidden), matrix(hidden, heads * head_dim), matrix(2 * ffn, hidden), matrix(hidden, ffn))
            for _ in range(layers)
        ]
        size = (layers, batch, kv_heads, self.slots, head_dim)
        self.k = torch.empty(size, dtype=torch.bfloat16, device=device).normal_()
        self.v = torch.empty(size, dtype=torch.bfloat16, device=device).normal_()
        frequencies = 500000.0 ** (-torch.arange(0, head_dim, 2, device=device).float() / head_dim)
        angles = torch.arange(self.slots, device=device).float()[:, None] * frequencies
        self.cos, self.sin = angles.cos().to(torch.bfloat16), angles.sin().to(torch.bfloat16)
        self.token = torch.randint(vocab, (batch,), device=device)
        self.position = torch.tensor([context], device=device)

    def rope(self, x, cos, sin):
        low, high = x.chunk(2, dim=-1)
        return torch.cat((low * cos - high * sin, high * cos + low * sin), dim=-1)

    def step(self):
        """Decodes a token of each request at `position` and moves on; all in place, so that a graph can replay it."""
        batch = self.token.shape[0]
        cos, sin = self.cos.index_select(0, self.position), self.sin.index_select(0, self.position)
        mask = (torch.arange(self.slots, device=self.device) <= self.position)[None, None, None, :]
        x = F.embedding(self.token, self.embedding)
        for index, (qkv, o, gate_up, down) in enumerate(self.layers):
            h = F.linear(F.rms_norm(x, (x.shape[-1],), self.ones, 1e-5), qkv)
            q, k, v = h.view(batch, -1, 1, self.head_dim).split((self.heads, self.kv_heads, self.kv_heads), dim=1)
            self.k[index].index_copy_(2, self.position, self.rope(k, cos, sin))
            self.v[index].index_copy_(2, self.position, v)
            attended = F.scaled_dot_product_attention(
                self.rope(q, cos, sin), self.k[index], self.v[index], attn_mask=mask, enable_gqa=self.heads != self.kv_heads
            )
            x = x + F.linear(attended.reshape(batch, -1), o)
            gate, up = F.linear(F.rms_norm(x, (x.shape[-1],), self.ones, 1e-5), gate_up).chunk(2, dim=-1)
            x = x + F.linear(F.silu(gate) * up, down)
        logits = F.linear(F.rms_norm(x, (x.shape[-1],), self.ones, 1e-5), self.head)
        self.token.copy_(logits.argmax(dim=-1))
        self.position.add_(1)


def step_ms(model, steps):
    """Milliseconds of a step, the mean of `steps` in a row after some that warm up."""
    if model.device != "cuda":
        model.step()
        model.position.fill_(model.context)
        start = time.perf_counter()
        for _ in range(steps):
            model.step()
        return (time.perf_counter() - start) * 1000 / steps
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            model.step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        model.step()
    for _ in range(3):
        graph.replay()
    model.position.fill_(model.context)
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(steps):
        graph.replay()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / steps


def ours(path):
    """Milliseconds of a plain round by (model, requests), of the lab's file."""
    if path is None:
        return {}
    try:
        with open(path, encoding="utf8") as file:
            rounds = json.load(file)["rounds"]
    except FileNotFoundError:
        return {}
    return {(r["model"], r["requests"]): r["ms"] for r in rounds if r["simulated"] == 1}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="", help="only shapes with this in their name; tiny")
    parser.add_argument("--batches", default="1,4,16,64")
    parser.add_argument("--steps", type=int, default=48)
    parser.add_argument("--rounds")
    parser.add_argument("--json")
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    names = [n for n in SHAPES if options.model in n and (n != "tiny" or options.model == "tiny")]
    if not names:
        parser.error(f"no shape has {options.model} in its name")
    beside = ours(options.rounds)
    results = []
    print(f"PyTorch {torch.__version__}, {name}, bf16, plain decoding")
    print(f"{'model':<13} {'requests':>8} {'ms/step':>9} {'ms/token':>9} {'ours ms/step':>13}")
    with torch.inference_mode():
        for shape in names:
            for batch in map(int, options.batches.split(",")):
                torch.manual_seed(1)
                model = Llama(SHAPES[shape], batch, device)
                ms = step_ms(model, min(options.steps, 60))
                if int(model.position) >= model.slots or not 0 <= int(model.token.min()):
                    sys.exit("peer_torch: the steps left their cache")
                own = beside.get((shape, batch))
                shown = "" if own is None else f"{own:.3f}"
                print(f"{shape:<13} {batch:>8} {ms:>9.3f} {ms / batch:>9.4f} {shown:>13}", flush=True)
                results.append({"model": shape, "requests": batch, "ms": ms, "oursMs": own})
                del model
                if device == "cuda":
                    torch.cuda.empty_cache()
    if options.json:
        with open(options.json, "w", encoding="utf8") as file:
            json.dump({"torch": torch.__version__, "device": name, "steps": results}, file, indent=1)


if __name__ == "__main__":
    main()
