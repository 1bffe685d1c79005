"""Trains the target from scratch on the training files. Writes HF-layout files; resumes from its checkpoint.

The rate warms up, stays, and falls linearly over the last part of --steps; because the stable part does not depend on
--steps, a stopped run can be resumed with another --steps.
"""
import argparse
import json
import os
import random
import time

import numpy as np
import torch
from torch.nn import functional as F

import bpe
import corpus
import target


def build_stream(documents, eos, rng, small, copies):
    """One epoch of tokens: documents in random order, each followed by EOS. Documents below `small` tokens appear
    `copies` times, or the end of a file would be seen too seldom to be learnt."""
    order = [d for d in documents for _ in range(copies if len(d) < small else 1)]
    rng.shuffle(order)
    return np.concatenate([np.array([eos], dtype=np.int64)] + [np.append(d, eos) for d in order])


def held_out_loss(model, documents, eos, window, autocast, limit=None):
    """Mean loss per token over held-out documents cut into windows (EOS first, so a document's start is predicted too)."""
    stream = np.concatenate([[eos]] + [np.append(d, eos) for d in documents])
    count = (len(stream) - 1) // window
    rows = torch.from_numpy(np.stack([stream[i * window:(i + 1) * window + 1] for i in range(count)]))
    if limit:
        rows = rows[torch.linspace(0, count - 1, min(limit, count)).long()]
    losses = []
    with torch.no_grad(), autocast():
        for chunk in rows.split(max(1, 8192 // window)):
            chunk = chunk.to(model.cos.device)
            logits = model.lm_head(model.hidden(chunk[:, :-1])).float()
            losses.append(F.cross_entropy(logits.flatten(0, 1), chunk[:, 1:].flatten(), reduction="none").view(len(chunk), -1))
    return torch.cat(losses)


def rate(step, args):
    decay = int(args.steps * args.decay)
    if step < args.warmup:
        return args.lr * (step + 1) / args.warmup
    return args.lr * min(1.0, max(0.02, (args.steps - step) / decay))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default=corpus.MODEL_DIR, help="model folder (the tokenizer must be there)")
    parser.add_argument("--checkpoint", default=os.path.join(corpus.RUN_DIR, "target.pt"), help="checkpoint to write and resume")
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--tokens", type=int, default=4096, help="tokens per step")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--warmup", type=int, default=100)
    parser.add_argument("--decay", type=float, default=0.25, help="last part of the steps in which the rate falls to 2 %%")
    parser.add_argument("--weight-decay", type=float, default=0.1)
    parser.add_argument("--dropout", type=float, default=0.05, help="channel dropout on embeddings and residual branches")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--small", type=int, default=3000, help="documents below this many tokens are repeated")
    parser.add_argument("--copies", type=int, default=3)
    parser.add_argument("--eval-every", type=int, default=250)
    parser.add_argument("--save-every", type=int, default=100)
    args = parser.parse_args()

    corpus.use_threads()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    autocast = lambda: torch.autocast(device, torch.bfloat16)
    tokenizer = bpe.Tokenizer.load(os.path.join(args.out, "tokenizer.json"))
    train, held = corpus.split_documents()
    train = [np.array(tokenizer.encode(t)) for _, t in train]
    held = [np.array(tokenizer.encode(t)) for _, t in held]

    torch.manual_seed(args.seed)
    config = dict(target.CONFIG, vocab_size=tokenizer.size)
    model = target.Llama(config)
    model.initialise(0.05)
    model.to(device)
    matrices = [p for p in model.parameters() if p.dim() == 2]
    vectors = [p for p in model.parameters() if p.dim() != 2]
    optimiser = torch.optim.AdamW([{"params": matrices, "weight_decay": args.weight_decay},
                                   {"params": vectors, "weight_decay": 0.0}], lr=args.lr, betas=(0.9, 0.95))
    step, seconds = 0, 0.0
    os.makedirs(os.path.dirname(args.checkpoint), exist_ok=True)
    if os.path.exists(args.checkpoint):
        state = torch.load(args.checkpoint, map_location=device)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        step, seconds = state["step"], state["seconds"]
        print(f"resumed at step {step}", flush=True)
    print(f"{sum(p.numel() for p in model.parameters())} parameters, {sum(map(len, train))} training tokens, {device}", flush=True)

    running, began, last = [], time.time() - seconds, time.time()
    epoch_steps = sum(map(len, train)) // args.tokens
    stream, stream_epoch = None, -1
    while step < args.steps:
        if step // epoch_steps != stream_epoch:
            stream_epoch = step // epoch_steps
            stream = build_stream(train, tokenizer.eos, random.Random(args.seed * 1000 + stream_epoch), args.small, args.copies)
        rng = random.Random(args.seed * 1000003 + step)
        window = rng.choices([256, 512, 1536], weights=[62, 35, 3])[0]
        starts = [rng.randrange(len(stream) - window) for _ in range(max(1, round(args.tokens / window)))]
        batch = torch.from_numpy(np.stack([stream[s:s + window + 1] for s in starts])).to(device)
        for group in optimiser.param_groups:
            group["lr"] = rate(step, args)
        with autocast():
            logits = model.lm_head(model.hidden(batch[:, :-1], args.dropout))
        loss = F.cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        running.append(loss.item())
        step += 1
        if step % 25 == 0:
            print(f"step {step}/{args.steps} loss {np.mean(running):.4f} lr {rate(step, args):.2e} "
                  f"{len(running) * args.tokens / (time.time() - last):.0f} tokens/s {time.time() - began:.0f} s", flush=True)
            running, last = [], time.time()
        if step % args.eval_every == 0 or step == args.steps:
            value = held_out_loss(model, held, tokenizer.eos, 512, autocast, None if step == args.steps else 48).mean()
            print(f"step {step} held-out loss {value:.4f} (perplexity {value.exp():.2f})", flush=True)
            last = time.time()
        if step % args.save_every == 0 or step == args.steps:
            torch.save({"model": model.state_dict(), "optimiser": optimiser.state_dict(), "step": step,
                        "seconds": time.time() - began}, args.checkpoint + ".new")
            os.replace(args.checkpoint + ".new", args.checkpoint)
    target.save(args.out, model, config)
    frozen = target.load(args.out, device)
    report = {"steps": step, "tokens": step * args.tokens, "seconds": round(time.time() - began), "seed": args.seed}
    for name, window in (("heldOutLoss512", 512), ("heldOutLoss1536", 1536)):
        losses = held_out_loss(frozen, held, tokenizer.eos, window, autocast)
        report[name] = round(losses.mean().item(), 4)
    report["heldOutLossAt1280to1536"] = round(losses[:, 1280:].mean().item(), 4)
    report["trainLoss512"] = round(held_out_loss(frozen, train, tokenizer.eos, 512, autocast, 160).mean().item(), 4)
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
