"""Trains one drafter on the rollouts of the frozen target (train/rollout.py) and writes it in its format.

The loss at step i is the cross-entropy of the target's greedy token, weighted by --fade ** i; steps after the end of a
document do not count. The rate warms up, stays, and falls linearly over the last part (in time or steps).
"""
import argparse
import json
import os
import time

import numpy as np
import torch
from torch.nn import functional as F

import corpus
import drafter as drafters
import evaluate
import target

DEPTH = 5


def open_rollouts(folder, sources, hidden_size):
    """[(hidden memmap [N, H], tokens [N, 6])] of the sources; a source may still be growing."""
    opened = []
    for source in sources:
        path = os.path.join(folder, f"{source}-hidden.f16")
        tokens = np.fromfile(os.path.join(folder, f"{source}-tokens.i16"), dtype=np.int16)
        tokens = tokens[:len(tokens) // (DEPTH + 1) * (DEPTH + 1)].reshape(-1, DEPTH + 1)
        count = min(len(tokens), os.path.getsize(path) // (2 * hidden_size))
        opened.append((np.memmap(path, dtype=np.float16, mode="r", shape=(count, hidden_size)), tokens[:count]))
    return opened


def draft_vocabulary(rollouts, size):
    """The `size` commonest tokens of the labels, ascending ids."""
    counts = sum(np.bincount(tokens[:, 1:].ravel(), minlength=1 << 15) for _, tokens in rollouts)
    return np.sort(np.argsort(-counts, kind="stable")[:size])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cell", choices=["elman", "gru"], required=True)
    parser.add_argument("--model", default=corpus.MODEL_DIR, help="folder of the target")
    parser.add_argument("--out", help="folder to write (default: drafter-<cell> in the target's)")
    parser.add_argument("--rollouts", default=os.path.join(corpus.RUN_DIR, "rollouts"))
    parser.add_argument("--mix", default="other:3,other2:3,greedy:3,text:2", help="sources with their weights")
    parser.add_argument("--exit-dim", type=int, default=256)
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--draft-vocab", type=int, default=0, help="size of a trimmed vocabulary, 0 for all (gru only)")
    parser.add_argument("--start", help="a drafter folder of the same shape to start from")
    parser.add_argument("--examples", type=int, default=512, help="examples per step")
    parser.add_argument("--seconds", type=float, default=1380, help="time to train; the rate follows the clock")
    parser.add_argument("--steps", type=int, default=0, help="train this many steps instead (repeatable)")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--decay", type=float, default=0.4, help="last part in which the rate falls")
    parser.add_argument("--weight-decay", type=float, default=0.01)
    parser.add_argument("--fade", type=float, default=0.9, help="weight ratio of a draft step to the one before")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--eval-every", type=float, default=180, help="seconds between quick evaluations")
    args = parser.parse_args()

    corpus.use_threads()
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    out = args.out or os.path.join(args.model, f"drafter-{args.cell}")
    frozen = target.load(args.model, device)
    embedding = frozen.model.embed_tokens
    hidden_size, vocab = frozen.config["hidden_size"], frozen.config["vocab_size"]
    sources = {name: float(weight) for name, weight in (item.split(":") for item in args.mix.split(","))}
    rollouts = open_rollouts(args.rollouts, sources, hidden_size)
    weights = np.array(list(sources.values())) / sum(sources.values())
    print("examples: " + ", ".join(f"{name} {len(t)}" for name, (_, t) in zip(sources, rollouts)), flush=True)

    ids = draft_vocabulary(rollouts, args.draft_vocab) if args.draft_vocab else None
    model = drafters.load(args.start).requires_grad_(True) if args.start else \
        drafters.Drafter(args.cell, vocab, hidden_size, args.exit_dim, args.blocks, ids)
    model.to(device).train()
    column = torch.full((vocab,), -100, device=device)  # target id -> row of the head
    rows = torch.arange(vocab) if model.draft_vocab_ids is None else model.draft_vocab_ids.long()
    column[rows.to(device)] = torch.arange(len(rows), device=device)
    matrices = [p for p in model.parameters() if p.dim() == 2]
    vectors = [p for p in model.parameters() if p.dim() != 2]
    optimiser = torch.optim.AdamW([{"params": matrices, "weight_decay": args.weight_decay},
                                   {"params": vectors, "weight_decay": 0.0}], lr=args.lr, betas=(0.9, 0.98))
    fade = args.fade ** torch.arange(DEPTH, device=device)
    print(f"{sum(p.numel() for p in model.parameters())} parameters", flush=True)

    continued = evaluate.continuations(frozen, args.model)
    step, began, last_eval, window = 0, time.time(), time.time(), []
    while True:
        progress = step / args.steps if args.steps else (time.time() - began) / args.seconds
        if progress >= 1:
            break
        warm = min(1.0, (step + 1) / 100)
        for group in optimiser.param_groups:
            group["lr"] = args.lr * warm * min(1.0, max(0.01, (1 - progress) / args.decay))
        parts = rng.multinomial(args.examples, weights)
        picks = [(h, t, np.sort(rng.integers(0, len(t), n))) for (h, t), n in zip(rollouts, parts) if n]
        hidden = torch.from_numpy(np.concatenate([h[i] for h, _, i in picks])).to(device).float()
        tokens = torch.from_numpy(np.concatenate([t[i] for _, t, i in picks])).to(device).long()
        with torch.autocast(device, torch.bfloat16):
            logits = model(hidden, embedding(tokens[:, :DEPTH]))
        alive = (tokens[:, :DEPTH] != frozen.config["eos_token_id"]).cumprod(1)
        labels = column[tokens[:, 1:]]
        losses = F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="none")
        loss = (losses.view_as(labels) * alive * fade).sum() / (alive * fade).sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        step += 1
        if step % 10 == 0:
            hits = (logits.detach().argmax(-1) == labels).float().mul(alive).cumprod(1).mean(0)
            window.append(torch.cat([loss.detach()[None], hits]).cpu().numpy())
        if step % 200 == 0:
            mean = np.mean(window, axis=0)
            print(f"step {step} loss {mean[0]:.4f} hit runs {np.round(mean[1:], 3)} chain {1 + mean[1:].sum():.3f} "
                  f"{step * args.examples / (time.time() - began):.0f} examples/s {time.time() - began:.0f} s", flush=True)
            window = []
        if time.time() - last_eval > args.eval_every:
            drafters.save(out, model)
            print(f"step {step} held out: {evaluate.quick(frozen, out, continued)}", flush=True)
            last_eval = time.time()
    drafters.save(out, model)
    print(json.dumps({"cell": args.cell, "steps": step, "seconds": round(time.time() - began), "seed": args.seed,
                      "parameters": sum(p.numel() for p in model.parameters()),
                      "heldOut": evaluate.quick(frozen, out, continued)}), flush=True)


if __name__ == "__main__":
    main()
