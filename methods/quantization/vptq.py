"""VPTQ: Liu et al., "VPTQ: Extreme Low-bit Vector Post-Training Quantization for Large Language Models" (2024)."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

import torch
from torch import Tensor

from harness import Claim, Codebook, Count, Fraction, LayerProblem, OneOf, PackedWeight, Sum, method
from harness.compress import solve_columns
from harness.compress.columns import Rounding
from methods.quantization.gptq import _factor as damped_factor
from methods.quantization.kmeans import nearest, weighted_kmeans

SIZES = tuple(2**bits for bits in range(1, 17))
Centroids = Annotated[int, OneOf(SIZES)]
ResidualCentroids = Annotated[int, OneOf((0, *SIZES))]
ColumnNorm = Literal["minmax", "std", "off"]


@method(
    track="compress",
    paper="liu2024vptq",
    claims=[
        Claim(
            metric="perplexity(dataset=wikitext2)",
            than="vptq(compensate=false)",
            suite="ptq-lm-levels",
            params={"compensate": True},
            paper="a layer of an 8B model, normalised proxy error: weighted k-means 0.056, after the column loop 0.037",
        ),
        Claim(
            metric="perplexity(dataset=wikitext2)",
            than="gptq(bits=2, group_size=64)",
            suite="ptq-lm-levels",
            params={"vector": 4, "centroids": 256, "residual_centroids": 0, "compensate": True},
            paper="2 bits, perplexity below the best earlier method by 0.01 to 0.34 (LLaMA-2), 4.41 to 7.34 (LLaMA-3)",
        ),
    ],
)
def vptq(
    layer: LayerProblem,
    *,
    vector: Count = 8,
    centroids: Centroids = 65536,
    residual_centroids: ResidualCentroids = 0,
    norm: ColumnNorm = "minmax",
    act_order: bool = True,
    weighted: bool = True,
    compensate: bool = True,
    iterations: Count = 100,
    tolerance: Fraction = 1e-5,
    damping: Fraction = 0.01,
    block_size: Count = 128,
) -> PackedWeight:
    """The column loop of GPTQ, in which vectors of outputs are replaced by the nearest entries of a codebook.

    Each column j is normalised, v = (w - bias_j) / scale_j with its least weight and its range (`norm=std`, as in the
    first release of the code: its mean and standard deviation), and cut into vectors of `vector` outputs. The book is
    the k-means of them all from a random start, with weights H_jj (`weighted`), for at most `iterations` and until the
    error falls by no more than `tolerance` of itself. Columns are then taken by falling diagonal of H (`act_order`):
    each, as the columns before it left it, takes its nearest centroids (all entries of a vector share one input, so H
    has no say in which is nearest), and its error is spread over the later columns as in `gptq`. What this leaves,
    w - q, is clustered in the same way into `residual_centroids`, and the loop is run again with the nearest of these
    added to the nearest centroid. Without `compensate` the original weights are rounded: k-means alone. Books, scales
    and biases are half precision, and weights are rounded with them as stored.

    A book that has room for every distinct vector holds just these, in the least power of two (of at least 2): the
    weight is then kept up to half precision, and the bits counted are those of the smaller book.

    Deviations: the loop runs on w, and the rounding normalises, so that the loss it lowers is the layer's; the released
    code runs it on v, but with the Hessian of w. One book serves all columns, so indices are stored in the layer's
    order and no permutation is. A residual book stores the scales once more (16/m bits). Where `vector` does not divide
    the outputs, the last vector of a column goes on with the column's first weights, not with zeros. A constant column
    has scale 0 and is its bias; so is an input that is always zero, whose weights become 0 unless `norm=off`. Not done:
    a book of their own for outlier columns or for groups of columns, and the training of books and norms that may
    follow. Raises BadInput and TrialFailed as `gptq` does.
    """
    m, n = layer.weight.shape
    U, order, dead = layer.statistic(
        f"gptq damping={damping} act_order={act_order}",
        lambda layer: damped_factor(layer.hessian(), damping, act_order),
    )
    weight = layer.weight.masked_fill(dead, 0) if dead.any() else layer.weight
    # Without a factor to spread it by, an error stays where it is.
    spread = U if compensate else torch.eye(n, dtype=U.dtype, device=U.device)
    columns = Columns.of(weight, norm)
    energy = layer.hessian().diagonal()

    def learn(values: Tensor, size: int) -> Tensor:
        vectors = cut(values.T, vector).flatten(0, 1)
        weights = (energy if weighted else torch.ones_like(energy)).repeat_interleave(len(vectors) // n)
        return _book(vectors, weights, size, layer.generator, iterations, tolerance)

    books = [learn((weight - columns.bias) / columns.divisor, centroids)]
    solved, codes = round_columns(weight, spread, order, columns, books, block_size)
    if residual_centroids:
        rest = torch.empty_like(weight)
        rest[:, order] = solved.errors * spread.diagonal()
        books.append(learn(rest / columns.divisor, residual_centroids))
        solved, codes = round_columns(weight, spread, order, columns, books, block_size)

    loss = solved.loss
    if not compensate:
        loss = torch.linalg.solve_triangular(U, solved.errors, upper=True, left=False).square()
    layer.log["proxy_loss"] = float(loss.sum())
    parts = tuple(
        Codebook.pack(
            index.T,
            book,
            rows=m,
            scale=None if norm == "off" else columns.scale,
            bias=None if norm == "off" or stage else columns.bias,
        )
        for stage, (index, book) in enumerate(zip(codes, books, strict=True))
    )
    return Sum(parts) if residual_centroids else parts[0]


class Columns(NamedTuple):
    """What columns are normalised with, (n,), as half precision stores it; `divisor` is infinite where `scale` is 0."""

    scale: Tensor
    bias: Tensor
    divisor: Tensor

    @classmethod
    def of(cls, weight: Tensor, norm: ColumnNorm) -> Columns:
        if norm == "off":
            one = torch.ones_like(weight[0])
            return cls(one, torch.zeros_like(one), one)
        if norm == "minmax":
            bias, scale = weight.amin(0), weight.amax(0) - weight.amin(0)
        else:
            bias, scale = weight.mean(0), weight.std(0, correction=0)
        # A column that varies by less than its bias is rounded by would be normalised to what no book can store.
        scale = _stored(scale.masked_fill(scale <= bias.abs() * 2.0**-11, 0))
        return cls(scale, _stored(bias), scale.masked_fill(scale == 0, torch.inf))


def cut(columns: Tensor, vector: int) -> Tensor:
    """(..., m) -> (..., ceil(m / vector), vector): columns as vectors, the last one filled up from the top."""
    m = columns.shape[-1]
    whole = -(-m // vector)
    if whole * vector > m:
        columns = columns[..., torch.arange(whole * vector, device=columns.device) % m]
    return columns.unflatten(-1, (whole, vector))


def round_columns(
    weight: Tensor, U: Tensor, order: Tensor, columns: Columns, books: list[Tensor], block_size: int
) -> tuple[Rounding, Tensor]:
    """The column loop: its result, in the order of the loop, and codes (books, n, ceil(m / v)) in that of the layer.

    `U` is the factor for the columns in `order`; each of the books (k, v) is used on what the ones before it leave.
    """
    m, n = weight.shape
    vector = books[0].shape[1]
    places, scales, biases, divisors = (numbers.tolist() for numbers in (order, *columns))
    codes = torch.empty(len(books), n, -(-m // vector), dtype=torch.int32, device=weight.device)

    def quantize(w: Tensor, j: int) -> Tensor:
        at = places[j]
        rest = cut((w - biases[at]) / divisors[at], vector)
        q = biases[at]
        for stage, book in enumerate(books):
            code = nearest(rest, book)
            codes[stage, at] = code
            rest = rest - book[code]
            q = book[code].flatten()[:m] * scales[at] + q
        return q

    return solve_columns(weight[:, order], U, quantize, block=block_size), codes


def _book(
    vectors: Tensor, weights: Tensor, size: int, generator: torch.Generator, iterations: int, tolerance: float
) -> Tensor:
    """At most `size` centroids of vectors (N, v), a power of two, to half precision."""
    distinct = _stored(vectors).unique(dim=0)
    if len(distinct) > size:
        found, _ = weighted_kmeans(vectors, weights, size, generator, iterations=iterations, tolerance=tolerance)
        return _stored(found)
    room = max(2, 1 << (len(distinct) - 1).bit_length())
    return torch.cat([distinct, distinct[-1:].expand(room - len(distinct), -1)])


def _stored(numbers: Tensor) -> Tensor:
    """What half precision makes of them."""
    most = torch.finfo(torch.float16).max
    return numbers.clamp(-most, most).half().to(numbers.dtype)
