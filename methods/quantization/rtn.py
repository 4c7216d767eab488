"""Round to nearest: Nagel et al., "A White Paper on Neural Network Quantization" (2021)."""

from __future__ import annotations

from harness import Bits, GroupSize, LayerProblem, PackedWeight, method
from methods.quantization.grids import Clip, fit, group_width, pack


@method(track="compress", paper="nagel2021whitepaper")
def rtn(
    layer: LayerProblem,
    *,
    bits: Bits = 4,
    group_size: GroupSize = -1,
    symmetric: bool = False,
    clip: Clip = "minmax",
) -> PackedWeight:
    """Each weight goes to the nearest value of a uniform grid over its group of inputs.

    Uniform affine quantization of section 2.2 (equations 4 to 7), `symmetric` with the zero point fixed (equation 8),
    one grid for each output row and `group_size` inputs. The range is that of the weights with 0 inside, or with
    `clip="mse"` (section 3.1) the part of it with the least error; the exponent 2.4 of that error and the search over
    80 ranges are those of GPTQ's released code, so that the two methods are compared on the same grids. Scales are
    half precision, and weights are rounded with the scale as stored. Reads no calibration data. 16 bits keep the weight
    as it is. Raises BadInput for a group size that does not divide the layer's inputs.
    """
    if bits == 16:
        return layer.dense()
    m, n = layer.weight.shape
    groups = layer.weight.reshape(m, -1, group_width(layer, group_size))
    grid = fit(groups, bits=bits, symmetric=symmetric, clip=clip)
    codes = grid.codes(grid.round(groups)).view(m, n)
    return pack(codes, grid.view(m, -1), bits=bits, group_size=group_size, symmetric=symmetric)
