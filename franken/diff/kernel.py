"""The one pass over the weights, compiled: every statistic of an update from blocks that stay in
the cache.

numpy makes one trip through memory per operation and torch's eager loops are slower still
(benchmarks/diff.py); here a block of `BLOCK` weights of each checkpoint is widened to float32 once
and measured while it lies in the first-level cache. Two rules keep the loops vectorised: counters
are float32 (exact, a block has far fewer than 2²⁴ elements), and whatever compares magnitudes does
so on the bits, whose order is that of the numbers, so that a NaN comes out as the largest. Sums run
over a block in float32 and over blocks in float64; a block whose float32 sum of squares is below
`LOWEST_SUM` or not finite, where squares underflow or overflow, is summed in float64 throughout.
"""

import numba
import numpy as np

BLOCK = 2048  # elements: four float32 buffers of a block are 32 KiB

# Columns of the table that `measure` fills, a row per pair of checkpoints.
DELTA, DELTA_ABS, UNCHANGED, FLIPS, NEAR, NEAR_DELTA, LARGEST, PRODUCT = range(8)
COLUMNS = 8

_ONE, _ZERO = np.float32(1), np.float32(0)
LOWEST_SUM = np.float32(2.0**-80)  # 2048 squares lost below 2⁻¹²⁶ are no 2⁻³⁴ of it
_MAGNITUDE = np.uint32(0x7FFFFFFF)
_EXPONENT = np.uint32(0x7F800000)
_SEVEN = np.uint32(
    7 << 23
)  # bf16 has 7 bits after the point: its unit in the last place is 2⁻⁷ of the binade
_LOWEST = np.uint32(
    (7 << 23) + (1 << 16)
)  # below 2⁻¹¹⁹, where no weight is, the unit is bf16's smallest number
_SUMS = {"reassoc", "nsz", "contract", "arcp"}  # NaN and infinity keep their meaning


@numba.njit(nogil=True, cache=True, boundscheck=False)
def measure(first, second, third, table, squares, scratch):  # noqa: ANN001
    """Add the statistics of a stretch of three checkpoints to `table` [3, COLUMNS] and `squares`
    [3].

    `first`, `second`, `third`: the raw bits, uint16 for bf16 or uint32 for float32, of equal
    length; an empty `third` means that there are two. Rows of `table`: first→second, second→third,
    first→third. `PRODUCT` of the second row is Σ Δ₁₂·Δ₂₃. `scratch` is uint32 [4, BLOCK].
    """
    floats = scratch.view(np.float32)
    three = third.size > 0
    for start in range(0, first.size, BLOCK):
        stop = min(start + BLOCK, first.size)
        n = stop - start
        _widen(first[start:stop], scratch[0, :n])
        _widen(second[start:stop], scratch[1, :n])
        a, b, delta = floats[0, :n], floats[1, :n], floats[3, :n]
        squares[0] += _square(a)
        squares[1] += _square(b)
        exact = _pair(scratch[0, :n], scratch[1, :n], a, b, scratch[3, :n], delta, table[0])
        if three:
            _widen(third[start:stop], scratch[2, :n])
            c = floats[2, :n]
            squares[2] += _square(c)
            exact &= _pair(scratch[1, :n], scratch[2, :n], b, c, scratch[3, :n], delta, table[1])
            _pair(scratch[0, :n], scratch[2, :n], a, c, scratch[3, :n], delta, table[2])
            table[1, PRODUCT] += _product(a, b, c) if exact else _product_in_float64(a, b, c)


@numba.njit(nogil=True, cache=True, boundscheck=False)
def _pair(a_bits, b_bits, a, b, delta_bits, delta, row):  # noqa: ANN001
    """Add a block to a row of the table. Returns whether float32 was wide enough for it."""
    squared, absolute, unchanged = _update(a, b, a_bits, b_bits, delta)
    flips, near, near_squared, largest_bits = _rounding(a_bits, b_bits, delta_bits, delta)
    row[UNCHANGED] += unchanged
    row[FLIPS] += flips
    row[NEAR] += near
    if unchanged == a.size or _fits(squared):
        row[DELTA] += squared
        row[DELTA_ABS] += absolute
        row[NEAR_DELTA] += near_squared
        delta_bits[0] = largest_bits  # `delta` reads it as the float32 that it is
        row[LARGEST] = max(row[LARGEST], np.float64(delta[0]))
        return True
    wide_squared, wide_absolute, wide_near, largest = _update_in_float64(
        a, b, a_bits, b_bits, delta_bits
    )
    row[DELTA] += wide_squared
    row[DELTA_ABS] += wide_absolute
    row[NEAR_DELTA] += wide_near
    row[LARGEST] = max(row[LARGEST], largest)
    return False


@numba.njit(nogil=True, cache=True, boundscheck=False)
def _fits(squared):  # noqa: ANN001
    """Whether a block's sum of squares came out right in float32."""
    return LOWEST_SUM <= squared < np.float32(np.inf)


@numba.njit(nogil=True, cache=True, boundscheck=False)
def _widen(bits, out):  # noqa: ANN001
    shift = np.uint32(32 - 8 * bits.itemsize)
    for i in range(bits.size):
        out[i] = np.uint32(bits[i]) << shift


@numba.njit(nogil=True, cache=True, boundscheck=False)
def _square(x):  # noqa: ANN001
    total = _square_in_float32(x)
    if _fits(total):
        return np.float64(total)
    wide = 0.0
    for i in range(x.size):
        wide += np.float64(x[i]) * np.float64(x[i])
    return wide


@numba.njit(nogil=True, cache=True, boundscheck=False, fastmath=_SUMS)
def _square_in_float32(x):  # noqa: ANN001
    total = _ZERO
    for i in range(x.size):
        total += x[i] * x[i]
    return total


@numba.njit(nogil=True, cache=True, boundscheck=False, fastmath=_SUMS)
def _product(a, b, c):  # noqa: ANN001
    total = _ZERO
    for i in range(a.size):
        total += (b[i] - a[i]) * (c[i] - b[i])
    return np.float64(total)


@numba.njit(nogil=True, cache=True, boundscheck=False)
def _product_in_float64(a, b, c):  # noqa: ANN001
    total = 0.0
    for i in range(a.size):
        total += (np.float64(b[i]) - np.float64(a[i])) * (np.float64(c[i]) - np.float64(b[i]))
    return total


@numba.njit(nogil=True, cache=True, boundscheck=False)
def _update_in_float64(a, b, a_bits, b_bits, delta_bits):  # noqa: ANN001
    """Σ Δ², Σ |Δ|, Σ Δ² of what moved by one unit in the last place, and max |Δ|."""
    squared, absolute, near_squared, largest = 0.0, 0.0, 0.0, 0.0
    for i in range(a.size):
        d = abs(np.float64(b[i]) - np.float64(a[i]))
        squared += d * d
        absolute += d
        largest = max(largest, d)
        if delta_bits[i] <= _unit(_smaller(a_bits[i], b_bits[i])):
            near_squared += d * d
    return squared, absolute, near_squared, largest


@numba.njit(nogil=True, cache=True, boundscheck=False, fastmath=_SUMS)
def _update(a, b, a_bits, b_bits, delta):  # noqa: ANN001
    """|b − a| into `delta`; its sum of squares and sum; how many are bit-equal."""
    squared, absolute, unchanged = _ZERO, _ZERO, _ZERO
    for i in range(delta.size):
        d = abs(b[i] - a[i])
        delta[i] = d
        squared += d * d
        absolute += d
        unchanged += _ONE if a_bits[i] == b_bits[i] else _ZERO
    return squared, absolute, unchanged


@numba.njit(nogil=True, cache=True, boundscheck=False, fastmath=_SUMS)
def _rounding(a_bits, b_bits, delta_bits, delta):  # noqa: ANN001
    """Sign changes, zeros not counted; how many differ by at most one bf16 unit in the last place
    of the smaller, and their squares; the largest |Δ|."""
    flips, near, squared, largest = _ZERO, _ZERO, _ZERO, np.uint32(0)
    for i in range(delta_bits.size):
        x, y = a_bits[i], b_bits[i]
        smaller = _smaller(x, y)
        flips += _ONE if (np.int32(x ^ y) < 0) & (smaller != 0) else _ZERO
        d = delta_bits[i]
        largest = np.uint32(max(largest, d))
        within = d <= _unit(smaller)
        near += _ONE if within else _ZERO
        squared += delta[i] * delta[i] if within else _ZERO
    return flips, near, squared, largest


@numba.njit(nogil=True, cache=True, boundscheck=False)
def _smaller(x, y):  # noqa: ANN001
    """The smaller magnitude of two float32 numbers, all three as bits."""
    return np.uint32(min(np.uint32(x & _MAGNITUDE), np.uint32(y & _MAGNITUDE)))


@numba.njit(nogil=True, cache=True, boundscheck=False)
def _unit(magnitude):  # noqa: ANN001
    """bf16's unit in the last place at a magnitude, both as bits of float32."""
    return np.uint32(np.uint32(max(np.uint32(magnitude & _EXPONENT), _LOWEST)) - _SEVEN)
