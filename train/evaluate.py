"""Tokens per step of drafters on the held-out prompts, in greedy decoding: an evaluation independent of the engine.

Greedy decoding with drafting emits the same tokens as plain decoding. So the target's continuation of every prompt is
computed once; then the rounds are replayed along it: draft a beam from the hidden state that chose the root, count the
longest path that agrees with the continuation, move on by that many tokens plus the bonus token.
"""
import argparse
import hashlib
import json
import os
import time

import torch

import bpe
import corpus
import drafter as drafters
import rollout
import target

SHAPES = [(1, 1), (1, 3), (1, 4), (1, 5), (2, 5), (4, 4), (4, 5), (8, 5), (16, 5)]
NEVER = -50000.0


def continuations(model, folder, count=256, prompts=None):
    """[(tokens, hidden)] per held-out prompt, cut after EOS; hidden[i] chose tokens[i]. Kept on disk between runs."""
    with open(os.path.join(folder, "prompts.json"), encoding="utf-8") as f:
        texts = [p["text"] for p in json.load(f)][:prompts]
    with open(os.path.join(folder, "model.safetensors"), "rb") as f:
        digest = hashlib.sha256(f.read() + repr((texts, count)).encode()).hexdigest()[:16]
    path = os.path.join(corpus.RUN_DIR, f"continued-{digest}.pt")
    if os.path.exists(path):
        return torch.load(path)
    tokenizer = bpe.Tokenizer.load(os.path.join(folder, "tokenizer.json"))
    ids = [tokenizer.encode(t) for t in texts]
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    result = [None] * len(ids)
    with torch.no_grad():
        for chunk in (order[i:i + 24] for i in range(0, len(order), 24)):
            tokens, hidden = rollout.generate(model, [ids[i] for i in chunk], count)
            for row, i in enumerate(chunk):
                ended = (tokens[row] == model.config["eos_token_id"]).nonzero().flatten()
                length = int(ended[0]) + 1 if len(ended) else count
                result[i] = (tokens[row, :length].cpu(), hidden[row, :length].cpu())
    os.makedirs(corpus.RUN_DIR, exist_ok=True)
    torch.save(result, path)
    return result


def beam_search(drafter, embedding, hidden, roots, width, length):
    """Drafted tokens [N, width, length]: the score is the sum of log-softmax, all beams expand, the best W of W * V stay."""
    count, size = hidden.shape
    ids = drafter.draft_vocab_ids
    context = hidden[:, None].expand(count, width, size)
    state = torch.zeros(count, width, size, device=hidden.device)
    last = roots[:, None].expand(count, width)
    scores = torch.full((count, width), NEVER, device=hidden.device)
    scores[:, 0] = 0
    beams = torch.zeros(count, width, 0, dtype=torch.long, device=hidden.device)
    for _ in range(length):
        state = drafter.advance(embedding(last), state)
        logp = drafter.logits(context, state).float().log_softmax(-1)
        vocab = logp.shape[-1]
        scores, index = (logp + scores[..., None]).flatten(1).topk(width, dim=1)
        parent, last = index // vocab, index % vocab
        if ids is not None:
            last = ids.long()[last]
        state = state.gather(1, parent[..., None].expand(-1, -1, size))
        beams = torch.cat([beams.gather(1, parent[..., None].expand(-1, -1, beams.shape[2])), last[..., None]], dim=2)
    return beams


def replay(model, drafter, continued, width, length):
    """(rounds, tokens emitted by them, accepted runs of each length). A round counts when its whole draft could have been
    compared: rounds within the last `length` tokens of a cut continuation are left out."""
    eos = model.config["eos_token_id"]
    at = {i: 0 for i, (tokens, _) in enumerate(continued) if len(tokens) > 1}
    rounds, emitted, runs = 0, 0, [0] * (length + 1)
    while True:
        active = [i for i, t in at.items() if t + 1 < len(continued[i][0])
                  and (t + length + 1 < len(continued[i][0]) or int(continued[i][0][-1]) == eos)]
        if not active:
            return rounds, emitted, runs
        hidden = torch.stack([continued[i][1][at[i]] for i in active])
        roots = torch.stack([continued[i][0][at[i]] for i in active])
        beams = beam_search(drafter, model.model.embed_tokens, hidden, roots, width, length)
        for row, i in enumerate(active):
            truth = continued[i][0][at[i] + 1:at[i] + 1 + length]
            same = (beams[row, :, :len(truth)] == truth).long().cumprod(1).sum(1)
            accepted = int(same.max())
            step = min(accepted + 1, len(continued[i][0]) - 1 - at[i])
            at[i] += step
            rounds, emitted = rounds + 1, emitted + step
            runs[accepted] += 1


def quick(model, folder, continued, shapes=((1, 5), (8, 5))):
    """Tokens per step for a few shapes, for progress lines."""
    drafter = drafters.load(folder).to(model.cos.device)
    with torch.no_grad():
        results = {f"{w}x{l}": replay(model, drafter, continued, w, l) for w, l in shapes}
    return {name: round(emitted / rounds, 3) for name, (rounds, emitted, _) in results.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=corpus.MODEL_DIR)
    parser.add_argument("--drafters", nargs="*", help="drafter folders (default: drafter-elman and drafter-gru of the model)")
    parser.add_argument("--shapes", nargs="*", default=[f"{w}x{l}" for w, l in SHAPES], help="beam shapes, width x length")
    parser.add_argument("--tokens", type=int, default=256, help="tokens per prompt")
    parser.add_argument("--out", help="JSON file to write (default: print)")
    args = parser.parse_args()
    corpus.use_threads()
    model = target.load(args.model)
    began = time.time()
    continued = continuations(model, args.model, args.tokens)
    total = sum(len(t) for t, _ in continued)
    ended = sum(int(t[-1]) == model.config["eos_token_id"] for t, _ in continued)
    report = {"prompts": len(continued), "tokensPerPrompt": args.tokens, "tokens": total, "promptsEndedByEos": ended, "drafters": {}}
    for folder in args.drafters or [os.path.join(args.model, f"drafter-{c}") for c in ("elman", "gru")]:
        drafter, table = drafters.load(folder), {}
        for shape in args.shapes:
            width, length = map(int, shape.split("x"))
            with torch.no_grad():
                rounds, emitted, runs = replay(model, drafter, continued, width, length)
            table[shape] = {"tokensPerStep": round(emitted / rounds, 4), "rounds": rounds, "acceptedRuns": runs}
            print(f"{os.path.basename(folder)} {shape} {emitted / rounds:.3f} ({time.time() - began:.0f} s)", flush=True)
        report["drafters"][os.path.basename(folder)] = table
    text = json.dumps(report, indent=1)
    if args.out:
        with open(args.out, "w") as f:
            f.write(text + "\n")
    else:
        print(text)


if __name__ == "__main__":
    main()
