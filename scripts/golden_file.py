"""The file golden.safetensors (github.com/huggingface/safetensors, README, "Format"): a u64 with
the header's size, the header as JSON, the tensors' bytes. Used by golden_raw.py and ref_dump.py."""
import json
import struct

import numpy as np

TYPES = {"float64": "F64", "int64": "I64", "float32": "F32", "int32": "I32"}


def write_golden(path, tensors):
    """tensors: name -> anything numpy makes a number or an array of. Widest types first."""
    arrays = {name: np.asarray(value) for name, value in tensors.items()}
    names = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))
    header, end = {}, 0
    for name in names:
        a, begin = arrays[name], end
        end += a.nbytes
        header[name] = {"dtype": TYPES[str(a.dtype)], "shape": list(a.shape),
                        "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % 64)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for name in names:
            f.write(np.ascontiguousarray(arrays[name]).tobytes())


def read_golden(path):
    """name -> numpy array."""
    dtypes = {text: name for name, text in TYPES.items()}
    with open(path, "rb") as f:
        size, = struct.unpack("<Q", f.read(8))
        header, data = json.loads(f.read(size)), f.read()
    out = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            flat = np.frombuffer(data[begin:end], dtypes[entry["dtype"]])
            out[name] = flat.reshape(entry["shape"])
    return out
