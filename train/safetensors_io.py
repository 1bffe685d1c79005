"""Reads and writes safetensors files with nothing but numpy and torch."""
import json
import struct

import numpy as np
import torch

_NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int32: "I32", torch.int64: "I64"}
_TYPES = {v: k for k, v in _NAMES.items()}


def save(path, tensors, metadata=None):
    """Writes {name: tensor} in the given order, data aligned to 64 bytes."""
    header, offset, blobs = {"__metadata__": metadata or {"format": "pt"}}, 0, []
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        raw = tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor
        blob = raw.numpy().tobytes()
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape),
                        "data_offsets": [offset, offset + len(blob)]}
        offset += len(blob)
        blobs.append(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % 64)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)))
        f.write(text)
        for blob in blobs:
            f.write(blob)


def load(path, dtype=None):
    """Returns {name: tensor}; floating tensors are converted to dtype when one is given."""
    with open(path, "rb") as f:
        data = f.read()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + size])
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        kind = _TYPES[entry["dtype"]]
        raw = torch.int16 if kind == torch.bfloat16 else kind
        array = torch.from_numpy(np.frombuffer(data[8 + size + begin:8 + size + end],
                                               dtype=str(raw).replace("torch.", "")).copy())
        tensor = array.view(torch.bfloat16) if kind == torch.bfloat16 else array
        tensor = tensor.reshape(entry["shape"])
        tensors[name] = tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor
    return tensors
