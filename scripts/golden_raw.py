#!/usr/bin/env python3
"""A golden folder's golden.h5 as golden.safetensors, which builds without HDF5 can read.

    scripts/golden_raw.py DIR/golden.h5 OUT/golden.safetensors

Same names, shapes and types; an attribute that is a number becomes a scalar "object@name" in
float64. Needs h5py.
"""
import sys

import h5py
import numpy as np

from golden_file import write_golden


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    tensors = {}

    def visit(name, thing):
        for key, value in thing.attrs.items():
            if not isinstance(value, (str, bytes)):
                tensors[f"{name}@{key}"] = np.float64(value)
        if isinstance(thing, h5py.Dataset):
            tensors[name] = thing[()]

    with h5py.File(sys.argv[1], "r") as f:
        f.visititems(visit)
    write_golden(sys.argv[2], tensors)


if __name__ == "__main__":
    main()
