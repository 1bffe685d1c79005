"""Writes the model folder from a checkpoint of train_target.py (to look at a run that still goes on)."""
import argparse
import os

import torch

import corpus
import target


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", default=os.path.join(corpus.RUN_DIR, "target.pt"))
    parser.add_argument("--out", default=corpus.MODEL_DIR)
    args = parser.parse_args()
    state = torch.load(args.checkpoint, map_location="cpu")
    vocab, hidden = state["model"]["lm_head.weight"].shape
    config = dict(target.CONFIG, vocab_size=vocab, hidden_size=hidden)
    model = target.Llama(config)
    model.load_state_dict(state["model"])
    target.save(args.out, model, config)
    print(f"step {state['step']}")


if __name__ == "__main__":
    main()
