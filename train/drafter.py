"""Recurrent drafters: the Elman cell in the format of Apple's checkpoints, and a gated cell in ours.

From h (the target's post-norm hidden state whose logits chose the root g0) and embeddings of g0, g1, ..:
    s_i = cell(Emb[g_{i-1}], s_{i-1}), s_0 = 0;  z = [h; s_i];  z = input_proj z when exit_dim != 2 hidden;
    z += SiLU(A z + a) for each block;  logits = head z.
"""
import json
import os

import torch
from torch import nn
from torch.nn import functional as F

import safetensors_io


class Drafter(nn.Module):
    def __init__(self, cell, vocab, hidden, exit_dim, blocks, draft_vocab=None):
        """`draft_vocab`: ids of the tokens the head can propose (gru only), None for all."""
        super().__init__()
        self.cell, self.vocab, self.size, self.exit_dim = cell, vocab, hidden, exit_dim
        if cell == "gru":
            self.gru = nn.GRUCell(hidden, hidden)
        elif cell == "elman":
            self.rnn_w = nn.Linear(hidden, hidden, bias=False)
            self.rnn_u = nn.Linear(hidden, hidden)
        else:
            raise ValueError(f"unknown cell {cell}")
        self.input_proj = nn.Linear(2 * hidden, exit_dim) if exit_dim != 2 * hidden else None
        self.blocks = nn.ModuleList(nn.Linear(exit_dim, exit_dim) for _ in range(blocks))
        self.head = nn.Linear(exit_dim, vocab if draft_vocab is None else len(draft_vocab), bias=False)
        self.register_buffer("draft_vocab_ids", None if draft_vocab is None else torch.as_tensor(draft_vocab))

    def advance(self, x, state):
        if self.cell == "elman":
            return F.silu(self.rnn_w(x) + self.rnn_u(state))
        gates_x = F.linear(x, self.gru.weight_ih, self.gru.bias_ih)
        gates_s = F.linear(state, self.gru.weight_hh, self.gru.bias_hh)
        rx, zx, nx = gates_x.chunk(3, -1)
        rs, zs, ns = gates_s.chunk(3, -1)
        r, z = torch.sigmoid(rx + rs), torch.sigmoid(zx + zs)
        n = torch.tanh(nx + r * ns)
        return n + z * (state - n)

    def logits(self, hidden, state):
        """hidden and state [.., H] -> logits over the draft vocabulary."""
        z = torch.cat([hidden, state], dim=-1)
        if self.input_proj is not None:
            z = self.input_proj(z)
        for block in self.blocks:
            z = z + F.silu(block(z))
        return self.head(z)

    def forward(self, hidden, embedded):
        """Teacher-forced: hidden [N, H], embedded [N, steps, H] of g0.. -> logits [N, steps, vocab]."""
        state, states = torch.zeros_like(hidden), []
        for i in range(embedded.shape[1]):
            state = self.advance(embedded[:, i], state)
            states.append(state)
        states = torch.stack(states, dim=1)
        return self.logits(hidden[:, None].expand_as(states), states)

    def tensors(self):
        """{file name: parameter} in the format of the cell."""
        own = dict(self.named_parameters())
        names = {}
        for name in own:
            parts = name.split(".")
            if self.cell == "elman" and parts[0] == "blocks":
                names[f"lm_head.{parts[1]}.linear.{parts[2]}"] = own[name]
            elif self.cell == "elman" and parts[0] == "head":
                names[f"lm_head.{len(self.blocks)}.weight"] = own[name]
            else:
                names[name] = own[name]
        return names

    def config(self):
        common = {"vocab_size": self.vocab, "hidden_size": self.size, "exit_dim": self.exit_dim,
                  "num_draft_layers": len(self.blocks)}
        if self.cell == "elman":
            return {"architectures": ["Drafter"], "model_type": "recurrent_drafting_drafter", **common,
                    "num_lookback_tokens": -1, "rnn": True, "torch_dtype": "bfloat16"}
        return {"architectures": ["RecurrentDrafter"], "model_type": "redrafter_drafter", "cell": self.cell, **common,
                "torch_dtype": "bfloat16"}


def save(folder, drafter):
    os.makedirs(folder, exist_ok=True)
    tensors = {}
    for name, p in drafter.tensors().items():
        tensors[name] = p.detach().to(torch.bfloat16)
    if drafter.draft_vocab_ids is not None:
        if drafter.cell == "elman":
            raise ValueError("the Elman format has no trimmed vocabulary")
        tensors["draft_vocab_ids"] = drafter.draft_vocab_ids.to(torch.int32)
    safetensors_io.save(os.path.join(folder, "model.safetensors"), tensors)
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(drafter.config(), f, indent=1)
        f.write("\n")


def load(folder):
    with open(os.path.join(folder, "config.json")) as f:
        config = json.load(f)
    tensors = safetensors_io.load(os.path.join(folder, "model.safetensors"), torch.float32)
    cell = config.get("cell", "elman")
    drafter = Drafter(cell, config["vocab_size"], config["hidden_size"], config["exit_dim"], config["num_draft_layers"],
                      tensors.pop("draft_vocab_ids", None))
    with torch.no_grad():
        for name, p in drafter.tensors().items():
            p.copy_(tensors.pop(name))
    assert not tensors, sorted(tensors)
    return drafter.eval().requires_grad_(False)
