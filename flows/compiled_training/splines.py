"""Compiled loops of rational-quadratic splines (`flows.families.nsf`), and their gradients."""

from typing import no_type_check

import numpy as np
from numba import float32

from flows.compiled.functions import exp, jit, log
from flows.compiled.micro_kernels import LANES, VECTORS, stay_apart
from flows.compiled_training.fields import (
    BACK,
    BINS,
    BOUND,
    FIRST,
    FORTH,
    GRAD_OUT,
    GRAD_SOURCE,
    GRAD_TARGET,
    LEAST_SIZE,
    LEAST_SLOPE,
    MATRICES,
    MATRIX,
    MOVED,
    OUT,
    PLACES,
    ROWS,
    SEEN,
    SLOPE_OFFSET,
    SOURCE,
    STEP,
    TARGET,
    WIDTH,
)
from flows.compiled_training.panels import keep, mask_at, place_of
from flows.compiled_training.products import pull_network, run_matrix, softmax

# mypy: ignore-errors
# numba compiles these functions by its own types.

# Lines of the work space of splines: a value for each row of a panel and feature, some features at
# a time. Constant distances let the compiler see that they do not overlap.
SPAN = 16 * LANES * VECTORS
(X, SHOWN, PLACE, LEFT, BOTTOM, BIN_WIDTH, BIN_HEIGHT, RAW_FIRST, RAW_SECOND, INDEX, SUM_WIDTH,
 SUM_HEIGHT, GRAD, PULL, GRAD_LEFT, GRAD_BOTTOM, GRAD_WIDTH, GRAD_HEIGHT, GRAD_FIRST, GRAD_SECOND,
 ) = range(0, 20 * SPAN, SPAN)  # fmt: skip
SPLINE_NUMBERS = 20 * SPAN


@jit()
@no_type_check
def _find_bins(values, at, step, size, bins, bound, lines):
    """Find the bin of each number, its corner, sizes and the parameters of its slopes."""
    stay_apart()
    scale, reach = float32((1 + bins * _floor(bins)) / (2 * bound)), float32(bound)
    heights, slopes = at + bins * step, at + 2 * bins * step
    for j in range(size):
        place = lines[X + j]
        place = -reach if place < -reach else place
        place = reach if place > reach else place
        lines[PLACE + j] = (place + reach) * scale
    for line in (LEFT, BOTTOM, RAW_FIRST, INDEX):
        lines[line : line + size] = 0
    for j in range(size):
        lines[BIN_WIDTH + j] = lines[SUM_WIDTH + j] = values[at + j]
        lines[BIN_HEIGHT + j] = lines[SUM_HEIGHT + j] = values[heights + j]
        lines[RAW_SECOND + j] = values[slopes + j]
    for k in range(1, bins):
        widths = values[at + k * step : at + k * step + size]
        for j in range(size):
            inside = lines[PLACE + j] >= lines[SUM_WIDTH + j]
            lines[LEFT + j] = lines[SUM_WIDTH + j] if inside else lines[LEFT + j]
            lines[BOTTOM + j] = lines[SUM_HEIGHT + j] if inside else lines[BOTTOM + j]
            lines[INDEX + j] = float32(k) if inside else lines[INDEX + j]
            lines[BIN_WIDTH + j] = widths[j] if inside else lines[BIN_WIDTH + j]
            lines[SUM_WIDTH + j] += widths[j]
        more = values[heights + k * step : heights + k * step + size]
        for j in range(size):
            inside = lines[INDEX + j] == float32(k)
            lines[BIN_HEIGHT + j] = more[j] if inside else lines[BIN_HEIGHT + j]
            lines[SUM_HEIGHT + j] += more[j]
        _find_slopes(values, slopes, step, size, k, bins, lines)


@jit()
@no_type_check
def _find_slopes(values, slopes, step, size, k, bins, lines):
    """Take the parameters of the slopes of those numbers that are in bin `k`."""
    below = values[slopes + (k - 1) * step : slopes + (k - 1) * step + size]
    for j in range(size):
        inside = lines[INDEX + j] == float32(k)
        lines[RAW_FIRST + j] = below[j] if inside else lines[RAW_FIRST + j]
    if k < bins - 1:
        above = values[slopes + k * step : slopes + k * step + size]
        for j in range(size):
            inside = lines[INDEX + j] == float32(k)
            lines[RAW_SECOND + j] = above[j] if inside else lines[RAW_SECOND + j]
    else:
        for j in range(size):
            inside = lines[INDEX + j] == float32(k)
            lines[RAW_SECOND + j] = float32(0) if inside else lines[RAW_SECOND + j]


@jit()
@no_type_check
def _floor(bins):
    return LEAST_SIZE / (1 - LEAST_SIZE * bins)


@jit()
@no_type_check
def _slope_of(raw):
    """Return softplus(raw + SLOPE_OFFSET) + LEAST_SLOPE."""
    y = raw + SLOPE_OFFSET
    size = y if y > float32(0) else -y
    positive = y if y > float32(0) else float32(0)
    return positive + log(float32(1) + exp(-size)) + LEAST_SLOPE


@jit()
@no_type_check
def run_spline(layer, matrices, index, arrays, shown, panels, context, numbers, loss):
    """Map data to noise by rational-quadratic splines (`flows.families.nsf`)."""
    stay_apart()
    parameters, values = arrays[0], arrays[2]
    for number in range(layer[MATRICES]):
        run_matrix(matrices[layer[MATRIX] + number], index, parameters, values, panels, context)
    keep(layer, index, values, panels, (layer[SOURCE], layer[TARGET]), FORTH)
    moved, bins, bound = layer[MOVED], layer[BINS], numbers[layer[BOUND]]
    lines, step = np.zeros(SPLINE_NUMBERS, np.float32), moved * ROWS
    floor = float32(_floor(bins))
    for panel in range(panels):
        for begin in range(0, moved, SPAN // ROWS):
            count = min(SPAN // ROWS, moved - begin)
            size = count * ROWS
            at = place_of(panels, layer[OUT], (3 * bins - 1) * moved, begin, panel)
            _gather(layer, index, values, shown, panels, panel, begin, count, lines)
            most, total = lines[PLACE : PLACE + size], lines[LEFT : LEFT + size]
            softmax(values, at, step, bins, floor, most, total)
            softmax(values, at + bins * step, step, bins, floor, most, total)
            _find_bins(values, at, step, size, bins, bound, lines)
            _bend(size, bins, bound, lines)
            for t in range(count):
                i = layer[FIRST] + (begin + t) * layer[STEP]
                to = index[layer[PLACES] + i]
                u = place_of(panels, layer[TARGET], layer[WIDTH], to, panel)
                for j in range(ROWS):
                    values[u + j] = lines[GRAD + t * ROWS + j]
                    loss[panel * ROWS + j] -= lines[PULL + t * ROWS + j]


@jit()
@no_type_check
def _gather(layer, index, values, shown, panels, panel, begin, count, lines):
    """Copy the values of some features, and their masks, into lines."""
    for t in range(count):
        i = layer[FIRST] + (begin + t) * layer[STEP]
        x = place_of(panels, layer[SOURCE], layer[WIDTH], i, panel)
        mask = mask_at(shown, panels, index[layer[SEEN] + i], panel)
        for j in range(ROWS):
            lines[X + t * ROWS + j] = values[x + j]
            lines[SHOWN + t * ROWS + j] = shown[mask + j]


@jit()
@no_type_check
def _bend(size, bins, bound, lines):
    """Compute the noise, in the line GRAD, and the log slopes, in the line PULL."""
    stay_apart()
    unit, reach = float32(2 * bound / (1 + bins * _floor(bins))), float32(bound)
    for j in range(size):
        s = lines[BIN_HEIGHT + j] / lines[BIN_WIDTH + j]
        theta = (lines[PLACE + j] - lines[LEFT + j]) / lines[BIN_WIDTH + j]
        first, second = _slope_of(lines[RAW_FIRST + j]), _slope_of(lines[RAW_SECOND + j])
        rest = float32(1) - theta
        hump = theta * rest
        below = s * theta * theta + first * hump
        under = s + (first + second - s - s) * hump
        rise = first * rest * rest + float32(2) * s * hump + second * theta * theta
        quotient = s / under
        log_slope = log(rise * quotient * quotient)
        noise = (lines[BOTTOM + j] + lines[BIN_HEIGHT + j] * below / under) * unit - reach
        x = lines[X + j]
        away = (x if x > float32(0) else -x) > reach
        lines[GRAD + j] = (x if away else noise) * lines[SHOWN + j]
        lines[PULL + j] = (float32(0) if away else log_slope) * lines[SHOWN + j]


@jit()
@no_type_check
def pull_spline(layer, matrices, index, work, shown, panels, context, numbers, weight, wide):
    """Compute the gradients of a spline layer, from those of its output."""
    stay_apart()
    values, grads = work[2], work[3]
    keep(layer, index, grads, panels, (layer[GRAD_SOURCE], layer[GRAD_TARGET]), BACK)
    width, moved, bins, bound = layer[WIDTH], layer[MOVED], layer[BINS], numbers[layer[BOUND]]
    lines, step = np.zeros(SPLINE_NUMBERS, np.float32), moved * ROWS
    outs = (3 * bins - 1) * moved
    for panel in range(panels):
        for begin in range(0, moved, SPAN // ROWS):
            count = min(SPAN // ROWS, moved - begin)
            size = count * ROWS
            at = place_of(panels, layer[OUT], outs, begin, panel)
            to = place_of(panels, layer[GRAD_OUT], outs, begin, panel)
            _gather(layer, index, values, shown, panels, panel, begin, count, lines)
            for t in range(count):
                i = layer[FIRST] + (begin + t) * layer[STEP]
                g = place_of(panels, layer[GRAD_TARGET], width, index[layer[PLACES] + i], panel)
                for j in range(ROWS):
                    lines[GRAD + t * ROWS + j] = grads[g + j]
                    lines[PULL + t * ROWS + j] = -weight[panel * ROWS + j]
            _find_bins(values, at, step, size, bins, bound, lines)
            _pull_bins(size, bins, bound, lines)
            _pull_sizes(values, grads, at, to, step, size, bins, lines, GRAD_LEFT, GRAD_WIDTH)
            _pull_sizes(
                values, grads, at + bins * step, to + bins * step, step, size, bins, lines,
                GRAD_BOTTOM, GRAD_HEIGHT,
            )  # fmt: skip
            _pull_slopes(grads, to + 2 * bins * step, step, size, bins, lines)
            for t in range(count):
                i = layer[FIRST] + (begin + t) * layer[STEP]
                x = place_of(panels, layer[GRAD_SOURCE], width, i, panel)
                for j in range(ROWS):
                    grads[x + j] = lines[GRAD + t * ROWS + j]
    first = layer[MATRIX]
    pull_network(
        layer, matrices[first : first + layer[MATRICES]], index, work, panels, context, wide
    )


@jit()
@no_type_check
def _pull_bins(size, bins, bound, lines):
    """Compute the gradients of the input, and of a bin's corner, sizes and slopes."""
    stay_apart()
    unit, reach = float32(2 * bound / (1 + bins * _floor(bins))), float32(bound)
    for j in range(size):
        x = lines[X + j]
        away = (x if x > float32(0) else -x) > reach
        grad = lines[GRAD + j] * lines[SHOWN + j]
        pull = float32(0) if away else lines[PULL + j] * lines[SHOWN + j]
        rise_u = float32(0) if away else grad * unit
        s = lines[BIN_HEIGHT + j] / lines[BIN_WIDTH + j]
        theta = (lines[PLACE + j] - lines[LEFT + j]) / lines[BIN_WIDTH + j]
        first, second = _slope_of(lines[RAW_FIRST + j]), _slope_of(lines[RAW_SECOND + j])
        rest = float32(1) - theta
        hump, tilt = theta * rest, rest - theta
        bend = first + second - s - s
        below = s * theta * theta + first * hump
        under = float32(1) / (s + bend * hump)
        rise = first * rest * rest + float32(2) * s * hump + second * theta * theta
        high = rise_u * lines[BIN_HEIGHT + j] * under
        grad_under = -(high * below + pull + pull) * under
        grad_rise = pull / rise
        grad_theta = (
            high * (float32(2) * s * theta + first * tilt)
            + grad_under * bend * tilt
            + grad_rise * float32(2) * (s * tilt + second * theta - first * rest)
        )
        grad_s = (
            high * theta * theta
            + grad_under * (float32(1) - hump - hump)
            + float32(2) * (grad_rise * hump + pull / s)
        )
        per_width = grad_theta / lines[BIN_WIDTH + j]
        lines[GRAD_LEFT + j] = -per_width
        lines[GRAD_BOTTOM + j] = rise_u
        lines[GRAD_WIDTH + j] = -per_width * theta - grad_s * s / lines[BIN_WIDTH + j]
        lines[GRAD_HEIGHT + j] = rise_u * below * under + grad_s / lines[BIN_WIDTH + j]
        lines[GRAD_FIRST + j] = (high + grad_under) * hump + grad_rise * rest * rest
        lines[GRAD_SECOND + j] = grad_under * hump + grad_rise * theta * theta
        lines[GRAD + j] = grad if away else per_width / unit


@jit()
@no_type_check
def _pull_sizes(values, grads, at, to, step, size, bins, lines, before, inside):
    """Compute the gradients of the logits of sizes, from those of a corner and of a size."""
    stay_apart()
    floor = float32(_floor(bins))
    index, mean = lines[INDEX : INDEX + size], lines[SUM_WIDTH : SUM_WIDTH + size]
    corner, own = lines[before : before + size], lines[inside : inside + size]
    mean[:] = 0
    for k in range(bins):
        result = grads[to + k * step : to + k * step + size]
        sizes = values[at + k * step : at + k * step + size]
        for j in range(size):
            grad = corner[j] if float32(k) < index[j] else float32(0)
            grad = own[j] if float32(k) == index[j] else grad
            result[j] = grad * (sizes[j] - floor)
        for j in range(size):
            mean[j] += result[j]
    for k in range(bins):
        result = grads[to + k * step : to + k * step + size]
        sizes = values[at + k * step : at + k * step + size]
        for j in range(size):
            result[j] -= (sizes[j] - floor) * mean[j]


@jit()
@no_type_check
def _pull_slopes(grads, to, step, size, bins, lines):
    """Compute the gradients of the parameters of the slopes."""
    stay_apart()
    for j in range(size):
        lines[GRAD_FIRST + j] /= float32(1) + exp(-(lines[RAW_FIRST + j] + SLOPE_OFFSET))
        lines[GRAD_SECOND + j] /= float32(1) + exp(-(lines[RAW_SECOND + j] + SLOPE_OFFSET))
    for k in range(bins - 1):
        result = grads[to + k * step : to + k * step + size]
        for j in range(size):
            grad = lines[GRAD_SECOND + j] if lines[INDEX + j] == float32(k) else float32(0)
            is_next = lines[INDEX + j] == float32(k + 1)
            result[j] = lines[GRAD_FIRST + j] if is_next else grad
