"""A small Llama in plain PyTorch (torch 1.13 or newer): training forward, decoding with a KV cache, HF-layout files."""
import json
import os

import torch
from torch import nn
from torch.nn import functional as F

import safetensors_io

TILE = 128
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 2048, "hidden_size": 256,
    "intermediate_size": 768, "num_hidden_layers": 8, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 64, "hidden_act": "silu", "max_position_embeddings": 2048, "rope_theta": 10000.0,
    "rope_scaling": None, "rms_norm_eps": 1e-5, "attention_bias": False, "mlp_bias": False,
    "tie_word_embeddings": False, "bos_token_id": 0, "eos_token_id": 0, "initializer_range": 0.02,
    "attention_dropout": 0.0, "use_cache": True, "torch_dtype": "bfloat16",
}


class RMSNorm(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(size)), eps

    def forward(self, x):
        x = x.float()
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps))


def rotate(x, cos, sin):
    """Half-rotation RoPE; x [batch, heads, time, head_dim], cos/sin [time or batch.., head_dim / 2]."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


def channel_dropout(x, p):
    """Drops whole channels of a sequence: one mask for all its positions, so it costs nearly nothing on a CPU."""
    if p == 0:
        return x
    mask = torch.empty(x.shape[0], 1, x.shape[2], device=x.device).bernoulli_(1 - p).div_(1 - p)
    return x * mask


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.heads, self.kv_heads, self.dim = c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]
        self.q_proj = nn.Linear(c["hidden_size"], self.heads * self.dim, bias=False)
        self.k_proj = nn.Linear(c["hidden_size"], self.kv_heads * self.dim, bias=False)
        self.v_proj = nn.Linear(c["hidden_size"], self.kv_heads * self.dim, bias=False)
        self.o_proj = nn.Linear(self.heads * self.dim, c["hidden_size"], bias=False)

    def project(self, x, cos, sin):
        """q [batch, heads, time, dim], k and v [batch, kv_heads, time, dim], rotated."""
        batch, time, _ = x.shape
        split = lambda y, n: y.view(batch, time, n, self.dim).transpose(1, 2)
        q, k, v = split(self.q_proj(x), self.heads), split(self.k_proj(x), self.kv_heads), split(self.v_proj(x), self.kv_heads)
        return rotate(q, cos, sin), rotate(k, cos, sin), v

    def widen(self, x):
        """Repeats KV heads for their query heads."""
        return x.repeat_interleave(self.heads // self.kv_heads, dim=1)

    def finish(self, out):
        batch, _, time, _ = out.shape
        return self.o_proj(out.transpose(1, 2).reshape(batch, time, self.heads * self.dim))

    def causal(self, q, k, v):
        """Causal attention in tiles of queries: small temporaries, and no work on keys after the tile."""
        k, v, outs, time = self.widen(k), self.widen(v), [], q.shape[2]
        for begin in range(0, time, TILE):
            end = min(time, begin + TILE)
            scores = torch.matmul(q[:, :, begin:end], k[:, :, :end].transpose(2, 3)).float() * self.dim ** -0.5
            mask = torch.full((end - begin, end), float("-inf"), device=q.device).triu(begin + 1)
            outs.append(torch.matmul((scores + mask).softmax(-1).to(v.dtype), v[:, :, :end]))
        return torch.cat(outs, dim=2)

    def forward(self, x, cos, sin, mask=None, cache=None):
        q, k, v = self.project(x, cos, sin)
        if cache is None:
            return self.finish(self.causal(q, k, v))
        k, v = cache.append(k, v)
        batch, _, time, _ = q.shape
        # The query heads of a KV head become rows of one product, so the cache is never copied.
        rows = q.reshape(batch, self.kv_heads, -1, self.dim).to(k.dtype)
        scores = torch.matmul(rows, k.transpose(2, 3)).float() * self.dim ** -0.5
        if mask is not None:
            scores = (scores.view(batch, self.heads, time, -1) + mask).view_as(scores)
        return self.finish(torch.matmul(scores.softmax(-1).to(v.dtype), v).view(batch, self.heads, time, self.dim))


class MLP(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.gate_proj = nn.Linear(c["hidden_size"], c["intermediate_size"], bias=False)
        self.up_proj = nn.Linear(c["hidden_size"], c["intermediate_size"], bias=False)
        self.down_proj = nn.Linear(c["intermediate_size"], c["hidden_size"], bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.input_layernorm = RMSNorm(c["hidden_size"], c["rms_norm_eps"])
        self.self_attn = Attention(c)
        self.post_attention_layernorm = RMSNorm(c["hidden_size"], c["rms_norm_eps"])
        self.mlp = MLP(c)

    def forward(self, x, cos, sin, mask=None, cache=None, dropout=0.0):
        x = x + channel_dropout(self.self_attn(self.input_layernorm(x), cos, sin, mask, cache), dropout)
        return x + channel_dropout(self.mlp(self.post_attention_layernorm(x)), dropout)


class Decoder(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.embed_tokens = nn.Embedding(c["vocab_size"], c["hidden_size"])
        self.layers = nn.ModuleList(Layer(c) for _ in range(c["num_hidden_layers"]))
        self.norm = RMSNorm(c["hidden_size"], c["rms_norm_eps"])


class Llama(nn.Module):
    """State-dict names are those of LlamaForCausalLM."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        self.lm_head = nn.Linear(config["hidden_size"], config["vocab_size"], bias=False)
        inverse = config["rope_theta"] ** -(torch.arange(0, config["head_dim"], 2).double() / config["head_dim"])
        angles = torch.outer(torch.arange(config["max_position_embeddings"]).double(), inverse)
        self.register_buffer("cos", angles.cos().float(), persistent=False)
        self.register_buffer("sin", angles.sin().float(), persistent=False)

    def initialise(self, std):
        depth = self.config["num_hidden_layers"]
        for name, p in self.named_parameters():
            if p.dim() == 2:
                residual = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(p, std=std / (2 * depth) ** 0.5 if residual else std)

    def hidden(self, ids, dropout=0.0):
        """Post-final-norm hidden states of ids [batch, time], fp32."""
        time = ids.shape[1]
        x = channel_dropout(self.model.embed_tokens(ids), dropout)
        for layer in self.model.layers:
            x = layer(x, self.cos[:time], self.sin[:time], dropout=dropout)
        return self.model.norm(x)

    def step(self, ids, caches, pads=None):
        """Decoding: ids [batch, time] follow what the caches hold. With `pads` [batch], rows are left-padded by that
        many tokens. Returns the hidden states of ids."""
        start, time = caches[0].length, ids.shape[1]
        slots = torch.arange(start + time, device=ids.device)
        query = slots[start:]
        if pads is None:
            positions = query[None]
            mask = torch.where(slots[None, :] > query[:, None], float("-inf"), 0.0) if time > 1 else None
        else:
            positions = (query[None] - pads[:, None]).clamp(min=0)
            hidden = (slots[None, None] > query[None, :, None]) | (slots[None, None] < pads[:, None, None])
            hidden = hidden & (slots[None, None] != query[None, :, None])
            mask = torch.where(hidden, float("-inf"), 0.0)[:, None]
        cos, sin = self.cos[positions][:, None], self.sin[positions][:, None]
        x = self.model.embed_tokens(ids)
        for layer, cache in zip(self.model.layers, caches):
            x = layer(x, cos, sin, mask, cache)
        return self.model.norm(x)


class Cache:
    """Keys and values of one layer in buffers of a fixed capacity."""

    def __init__(self, batch, config, capacity, dtype, device):
        shape = (batch, config["num_key_value_heads"], capacity, config["head_dim"])
        self.k, self.v = (torch.zeros(shape, dtype=dtype, device=device) for _ in range(2))
        self.length = 0

    def append(self, k, v):
        end = self.length + k.shape[2]
        self.k[:, :, self.length:end], self.v[:, :, self.length:end] = k, v
        self.length = end
        return self.k[:, :, :end], self.v[:, :, :end]


def save(folder, model, config):
    os.makedirs(folder, exist_ok=True)
    tensors = {name: p.detach().to(torch.bfloat16) for name, p in model.state_dict().items()}
    safetensors_io.save(os.path.join(folder, "model.safetensors"), tensors)
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(config, f, indent=1)
        f.write("\n")


def load(folder, device="cpu"):
    """The model of a folder with fp32 copies of its weights, frozen."""
    with open(os.path.join(folder, "config.json")) as f:
        config = json.load(f)
    model = Llama(config)
    model.load_state_dict(safetensors_io.load(os.path.join(folder, "model.safetensors"), torch.float32))
    return model.to(device).eval().requires_grad_(False)
