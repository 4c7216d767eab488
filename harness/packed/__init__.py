"""Packed weights: objects whose tensors are the stored format, so that their size is measured and never declared."""

from harness.packed.base import PackedWeight, kinds, packed, part, unpack
from harness.packed.codebook import Codebook
from harness.packed.dense import Dense
from harness.packed.entropy import DFloat11
from harness.packed.linear import CompressedConv2d, CompressedLinear, dense_weights, replace_layers
from harness.packed.lowrank import LowRank
from harness.packed.planes import BitPlanes
from harness.packed.size import model_size
from harness.packed.sparse import SemiStructured, Sparse, SparseRows
from harness.packed.store import ShardWriter, load, load_metadata, load_model_tensors, save
from harness.packed.sums import Rows, Sum
from harness.packed.ternary import SparseTernary, Ternary
from harness.packed.uniform import Uniform, stored_scale

__all__ = [
    "BitPlanes",
    "Codebook",
    "CompressedConv2d",
    "CompressedLinear",
    "DFloat11",
    "Dense",
    "LowRank",
    "PackedWeight",
    "Rows",
    "SemiStructured",
    "ShardWriter",
    "Sparse",
    "SparseRows",
    "SparseTernary",
    "Sum",
    "Ternary",
    "Uniform",
    "dense_weights",
    "kinds",
    "load",
    "load_metadata",
    "load_model_tensors",
    "model_size",
    "packed",
    "part",
    "replace_layers",
    "save",
    "stored_scale",
    "unpack",
]
