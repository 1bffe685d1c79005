"""Golden files for tests of the native engine: tiny random models of each family with the log-probabilities that an
independent fp64 implementation gives, and tiny random drafters with theirs.

    python3 train/golden.py            writes test/fixtures/golden/<name>/{config.json, model.safetensors, golden.json}

target golden.json:  ids [24], logprobs [24][vocab] (natural log-softmax after each id), hidden [24][hidden] (post-norm)
drafter golden.json: hidden [H], tokens [sequences][steps], logprobs [sequences][steps][head rows]: the distribution
                     after the state has consumed tokens[s][0..i]; rows are in the order of the head (draft_vocab_ids
                     names them when the file has it)
Weights are rounded to the stored type first, then everything is computed in fp64 from the stored values.
"""
import argparse
import json
import math
import os
import shutil

import torch

import safetensors_io

REPO = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VOCAB, STEPS = 96, 24

BASE = {"vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "hidden_act": "silu", "max_position_embeddings": 128, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "tie_word_embeddings": False, "bos_token_id": 0, "eos_token_id": 1, "torch_dtype": "float32"}
LLAMA = dict(BASE, architectures=["LlamaForCausalLM"], model_type="llama", attention_bias=False, mlp_bias=False)
# yarn: max_position_embeddings is factor x original, so readers that take the ratio and readers that take the factor agree.
TARGETS = {
    "llama": LLAMA,
    "llama-linear": dict(LLAMA, torch_dtype="bfloat16", rope_scaling={"rope_type": "linear", "factor": 4.0}),
    "llama-llama3": dict(LLAMA, torch_dtype="bfloat16", max_position_embeddings=512, rope_scaling={
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64}),
    "llama-yarn": dict(LLAMA, torch_dtype="float16", max_position_embeddings=256, rope_scaling={
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}),
    "mistral": dict(BASE, architectures=["MistralForCausalLM"], model_type="mistral", hidden_size=48, num_attention_heads=3,
                    intermediate_size=96, head_dim=16, sliding_window=None, rope_theta=1000000.0, torch_dtype="float16"),
    "qwen2": dict(BASE, architectures=["Qwen2ForCausalLM"], model_type="qwen2", hidden_size=64, num_attention_heads=4,
                  num_key_value_heads=2, rms_norm_eps=1e-6, rope_theta=1000000.0, tie_word_embeddings=True,
                  use_sliding_window=False, torch_dtype="bfloat16"),
    "qwen3": dict(BASE, architectures=["Qwen3ForCausalLM"], model_type="qwen3", num_attention_heads=4, num_key_value_heads=2,
                  head_dim=16, attention_bias=False, rms_norm_eps=1e-6, rope_theta=1000000.0, torch_dtype="float32"),
    "qwen3-sharded": dict(BASE, architectures=["Qwen3ForCausalLM"], model_type="qwen3", num_attention_heads=4,
                          num_key_value_heads=2, head_dim=32, attention_bias=False, rms_norm_eps=1e-6,
                          rope_theta=1000000.0, tie_word_embeddings=True, torch_dtype="bfloat16"),
    "llama-bias": dict(LLAMA, attention_bias=True, mlp_bias=True, torch_dtype="bfloat16"),
}
APPLE = {"architectures": ["Drafter"], "model_type": "recurrent_drafting_drafter", "vocab_size": VOCAB, "hidden_size": 32,
         "num_lookback_tokens": -1}
OURS = {"architectures": ["RecurrentDrafter"], "model_type": "redrafter_drafter", "cell": "gru", "vocab_size": VOCAB,
        "hidden_size": 32}
DRAFTERS = {
    "drafter-sum": dict(APPLE, exit_dim=64, num_draft_layers=1, rnn=False, torch_dtype="float32"),
    "drafter-elman": dict(APPLE, exit_dim=64, num_draft_layers=2, rnn=True, torch_dtype="bfloat16"),
    "drafter-elman-proj": dict(APPLE, exit_dim=48, num_draft_layers=2, rnn=True, torch_dtype="float16"),
    "drafter-gru": dict(OURS, exit_dim=64, num_draft_layers=2, torch_dtype="float32"),
    "drafter-gru-trimmed": dict(OURS, exit_dim=32, num_draft_layers=1, torch_dtype="bfloat16"),
}


def rounded(value):
    """Nested lists of floats with 7 significant digits."""
    if isinstance(value, list):
        return [rounded(v) for v in value]
    return float(f"{value:.7g}")


def random_target(c, generator):
    draw = lambda *shape, std: torch.randn(*shape, generator=generator, dtype=torch.float64) * std
    hidden, ffn = c["hidden_size"], c["intermediate_size"]
    dim = c.get("head_dim", hidden // c["num_attention_heads"])
    q, kv = c["num_attention_heads"] * dim, c["num_key_value_heads"] * dim
    norm = lambda n: 1 + draw(n, std=0.2)
    t = {"model.embed_tokens.weight": draw(c["vocab_size"], hidden, std=0.5)}
    for i in range(c["num_hidden_layers"]):
        p = f"model.layers.{i}."
        t[p + "input_layernorm.weight"] = norm(hidden)
        for name, out in (("q", q), ("k", kv), ("v", kv)):
            t[p + f"self_attn.{name}_proj.weight"] = draw(out, hidden, std=1.2 * hidden ** -0.5)
            if c["model_type"] == "qwen2" or c.get("attention_bias"):
                t[p + f"self_attn.{name}_proj.bias"] = draw(out, std=0.3)
        if c["model_type"] == "qwen3":
            t[p + "self_attn.q_norm.weight"], t[p + "self_attn.k_norm.weight"] = norm(dim), norm(dim)
        t[p + "self_attn.o_proj.weight"] = draw(hidden, q, std=q ** -0.5)
        if c.get("attention_bias"):
            t[p + "self_attn.o_proj.bias"] = draw(hidden, std=0.3)
        t[p + "post_attention_layernorm.weight"] = norm(hidden)
        for name, shape in (("gate", (ffn, hidden)), ("up", (ffn, hidden)), ("down", (hidden, ffn))):
            t[p + f"mlp.{name}_proj.weight"] = draw(*shape, std=shape[1] ** -0.5)
            if c.get("mlp_bias"):
                t[p + f"mlp.{name}_proj.bias"] = draw(shape[0], std=0.3)
    t["model.norm.weight"] = norm(hidden)
    if not c["tie_word_embeddings"]:
        t["lm_head.weight"] = draw(c["vocab_size"], hidden, std=2 * hidden ** -0.5)
    return t


def frequencies(c, dim):
    """Inverse frequencies of the rotation and the factor on its cosines and sines."""
    inverse = torch.tensor([c["rope_theta"] ** (-2 * i / dim) for i in range(dim // 2)], dtype=torch.float64)
    s = c.get("rope_scaling")
    if s is None:
        return inverse, 1.0
    factor = s["factor"]
    if s["rope_type"] == "linear":
        return inverse / factor, 1.0
    original = s["original_max_position_embeddings"]
    if s["rope_type"] == "llama3":
        out = []
        for f in inverse.tolist():
            turns = original * f / (2 * math.pi)  # turns over the original context
            low, high = s["low_freq_factor"], s["high_freq_factor"]
            if turns > high:
                out.append(f)
            elif turns < low:
                out.append(f / factor)
            else:
                keep = (turns - low) / (high - low)
                out.append((1 - keep) * f / factor + keep * f)
        return torch.tensor(out, dtype=torch.float64), 1.0
    assert s["rope_type"] == "yarn"
    index = lambda turns: dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(c["rope_theta"]))
    low = max(math.floor(index(s.get("beta_fast", 32))), 0)
    high = min(math.ceil(index(s.get("beta_slow", 1))), dim - 1)
    width = high - low if high != low else 0.001
    out = []
    for i, f in enumerate(inverse.tolist()):
        stretched = min(max((i - low) / width, 0.0), 1.0)
        out.append(f / factor * stretched + f * (1 - stretched))
    attention = s.get("attention_factor", 0.1 * math.log(factor) + 1 if factor > 1 else 1.0)
    return torch.tensor(out, dtype=torch.float64), attention


def rms(x, weight, eps):
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight


def run_target(c, t, ids):
    """Plain loops over layers and heads; returns (logprobs, hidden)."""
    count, heads, kv_heads, eps = len(ids), c["num_attention_heads"], c["num_key_value_heads"], c["rms_norm_eps"]
    dim = c.get("head_dim", c["hidden_size"] // heads)
    inverse, attention_factor = frequencies(c, dim)
    angle = torch.arange(count, dtype=torch.float64)[:, None] * inverse[None]
    cos, sin = angle.cos() * attention_factor, angle.sin() * attention_factor

    def rope(x):
        a, b = x[:, :dim // 2], x[:, dim // 2:]
        return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=1)

    x = t["model.embed_tokens.weight"][ids]
    for i in range(c["num_hidden_layers"]):
        w = lambda name: t.get(f"model.layers.{i}.{name}")
        bias = lambda name: 0 if w(name + ".bias") is None else w(name + ".bias")
        y = rms(x, w("input_layernorm.weight"), eps)
        q, k, v = (y @ w(f"self_attn.{n}_proj.weight").T for n in "qkv")
        if w("self_attn.q_proj.bias") is not None:
            q, k, v = (m + w(f"self_attn.{n}_proj.bias") for m, n in ((q, "q"), (k, "k"), (v, "v")))
        outs = []
        for h in range(heads):
            g = h // (heads // kv_heads)
            qh, kh, vh = q[:, h * dim:(h + 1) * dim], k[:, g * dim:(g + 1) * dim], v[:, g * dim:(g + 1) * dim]
            if w("self_attn.q_norm.weight") is not None:
                qh, kh = rms(qh, w("self_attn.q_norm.weight"), eps), rms(kh, w("self_attn.k_norm.weight"), eps)
            scores = rope(qh) @ rope(kh).T / math.sqrt(dim)
            scores = scores.masked_fill(torch.ones(count, count, dtype=torch.bool).triu(1), float("-inf"))
            outs.append(scores.softmax(-1) @ vh)
        x = x + torch.cat(outs, dim=1) @ w("self_attn.o_proj.weight").T + bias("self_attn.o_proj")
        y = rms(x, w("post_attention_layernorm.weight"), eps)
        gate = y @ w("mlp.gate_proj.weight").T + bias("mlp.gate_proj")
        up = y @ w("mlp.up_proj.weight").T + bias("mlp.up_proj")
        x = x + (gate * torch.sigmoid(gate) * up) @ w("mlp.down_proj.weight").T + bias("mlp.down_proj")
    hidden = rms(x, t["model.norm.weight"], eps)
    head = t["model.embed_tokens.weight"] if c["tie_word_embeddings"] else t["lm_head.weight"]
    return (hidden @ head.T).log_softmax(-1), hidden


def random_drafter(c, generator, trimmed):
    draw = lambda *shape, std: torch.randn(*shape, generator=generator, dtype=torch.float64) * std
    hidden, out, blocks = c["hidden_size"], c["exit_dim"], c["num_draft_layers"]
    ours, t = "cell" in c, {}
    if ours:
        for name in ("ih", "hh"):
            t[f"gru.weight_{name}"] = draw(3 * hidden, hidden, std=1.5 * hidden ** -0.5)
            t[f"gru.bias_{name}"] = draw(3 * hidden, std=0.3)
    elif c["rnn"]:
        t["rnn_u.weight"], t["rnn_u.bias"] = draw(hidden, hidden, std=1.5 * hidden ** -0.5), draw(hidden, std=0.3)
        t["rnn_w.weight"] = draw(hidden, hidden, std=1.5 * hidden ** -0.5)
    if out != 2 * hidden:
        t["input_proj.weight"], t["input_proj.bias"] = draw(out, 2 * hidden, std=(2 * hidden) ** -0.5), draw(out, std=0.2)
    for i in range(blocks):
        name = f"blocks.{i}" if ours else f"lm_head.{i}.linear"
        t[name + ".weight"], t[name + ".bias"] = draw(out, out, std=1.5 * out ** -0.5), draw(out, std=0.2)
    rows = trimmed or c["vocab_size"]
    t["head.weight" if ours else f"lm_head.{blocks}.weight"] = draw(rows, out, std=2 * out ** -0.5)
    if trimmed:
        t["draft_vocab_ids"] = torch.randperm(c["vocab_size"], generator=generator)[:trimmed].sort()[0].to(torch.int32)
    return t


def run_drafter(c, t, embedding, h, tokens):
    silu = lambda x: x * torch.sigmoid(x)
    state, rows, size = torch.zeros_like(h), [], c["hidden_size"]
    for token in tokens:
        x = embedding[token]
        if "cell" in c:
            gx, gs = t["gru.weight_ih"] @ x + t["gru.bias_ih"], t["gru.weight_hh"] @ state + t["gru.bias_hh"]
            r, z = torch.sigmoid(gx[:size] + gs[:size]), torch.sigmoid(gx[size:2 * size] + gs[size:2 * size])
            n = torch.tanh(gx[2 * size:] + r * gs[2 * size:])
            state = (1 - z) * n + z * state
        elif c["rnn"]:
            state = silu(t["rnn_w.weight"] @ x + t["rnn_u.weight"] @ state + t["rnn_u.bias"])
        else:
            state = state + x
        y = torch.cat([h, state])
        if "input_proj.weight" in t:
            y = t["input_proj.weight"] @ y + t["input_proj.bias"]
        for i in range(c["num_draft_layers"]):
            name = f"blocks.{i}" if "cell" in c else f"lm_head.{i}.linear"
            y = y + silu(t[name + ".weight"] @ y + t[name + ".bias"])
        head = t["head.weight"] if "cell" in c else t[f"lm_head.{c['num_draft_layers']}.weight"]
        rows.append((head @ y).log_softmax(-1))
    return torch.stack(rows)


def write(folder, config, tensors, golden, sharded=False):
    os.makedirs(folder)
    kind = getattr(torch, config["torch_dtype"])
    stored = {n: v if not v.is_floating_point() else v.to(kind) for n, v in tensors.items()}
    if sharded:
        names, index = list(stored), {}
        for part, chosen in enumerate((names[:len(names) // 2], names[len(names) // 2:])):
            file = f"model-{part + 1:05d}-of-00002.safetensors"
            safetensors_io.save(os.path.join(folder, file), {n: stored[n] for n in chosen})
            index.update({n: file for n in chosen})
        total = sum(v.numel() * v.element_size() for v in stored.values())
        with open(os.path.join(folder, "model.safetensors.index.json"), "w") as f:
            json.dump({"metadata": {"total_size": total}, "weight_map": index}, f, indent=1)
    else:
        safetensors_io.save(os.path.join(folder, "model.safetensors"), stored)
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(config, f, indent=1)
        f.write("\n")
    exact = {n: v.double() if v.is_floating_point() else v for n, v in stored.items()}
    with open(os.path.join(folder, "golden.json"), "w") as f:
        json.dump({k: rounded(v) if k != "ids" and k != "tokens" else v for k, v in golden(exact).items()}, f, separators=(",", ":"))
        f.write("\n")
    return exact


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default=os.path.join(REPO, "test", "fixtures", "golden"))
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    shutil.rmtree(args.out, ignore_errors=True)
    exact = {}
    for number, (name, config) in enumerate(TARGETS.items()):
        generator = torch.Generator().manual_seed(args.seed * 1000 + number)
        ids = torch.randint(0, VOCAB, (STEPS,), generator=generator)

        def golden(t):
            logprobs, hidden = run_target(config, t, ids)
            return {"ids": ids.tolist(), "logprobs": logprobs.tolist(), "hidden": hidden.tolist()}
        exact[name] = write(os.path.join(args.out, name), config, random_target(config, generator), golden, name.endswith("sharded"))
    embedding = exact["llama"]["model.embed_tokens.weight"]
    for number, (name, config) in enumerate(DRAFTERS.items()):
        generator = torch.Generator().manual_seed(args.seed * 2000 + number)
        h = torch.tensor(rounded(torch.randn(32, generator=generator, dtype=torch.float64).tolist()), dtype=torch.float64)
        tokens = torch.randint(0, VOCAB, (3, 5), generator=generator).tolist()

        def golden(t):
            return {"hidden": h.tolist(), "tokens": tokens,
                    "logprobs": [run_drafter(config, t, embedding, h, row).tolist() for row in tokens]}
        write(os.path.join(args.out, name), config, random_drafter(config, generator, 40 if "trimmed" in name else 0), golden)
    total = sum(os.path.getsize(os.path.join(d, n)) for d, _, names in os.walk(args.out) for n in names)
    print(f"{len(TARGETS)} targets and {len(DRAFTERS)} drafters, {total} bytes, in {os.path.relpath(args.out, REPO)}")


if __name__ == "__main__":
    main()
