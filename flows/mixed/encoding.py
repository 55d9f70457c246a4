"""Rows of a table to rows of the model and back, column by column, in float64."""

import math
from functools import cache
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from flows.bijections.base import Batch, PerRow
from flows.mixed.levels import Levels
from flows.mixed.map_fitting import fit_column
from flows.mixed.maps import ENDLESS, ColumnFit, FittedMaps
from flows.mixed.roundings import measure_roundings, round_like
from flows.preprocess import Denoise, Preprocessing, endless
from flows.specs.columns import HIDDEN, Layout, MixedColumn, TransformName
from flows.specs.mixed import DECADES, KNOTS, STEPS

# Largest value that is mapped; a larger one counts as this one.
LARGEST = 1e37

# Share of the training rows of which cells are hidden.
HIDING_SHARE = 0.5

# Share of these rows of which exactly one cell is hidden, as explanations ask for.
ONE_CELL_SHARE = 0.5

# Most cells that are encoded at a time: the maps of one take some dozens of numbers.
PIECE_CELLS = 2**17

_CURVES = ("tails", "knots", "scores", "slopes", "reach")
_NUMBERS = ("low", "high", "centre", "scale", "mean", "std")


class TableEncoding(Preprocessing):
    """Encoding of mixed rows: the indices of all variables, then the standardised continuous values.

    A continuous value that is absent, since its cell is missing, a spike or hidden, is 0. A NaN in a
    column that has no state for it stays NaN, unless cells can be hidden: then the cell is. An infinite
    value is one that is missing, too. A value outside of the bounds has density 0.

    Attributes:
        layout: Places of the columns.
        model_dim: Number of columns of a row of the model.
    """

    gapped: Tensor
    spikes: Tensor
    fill: Tensor
    grid: Tensor
    noise: Tensor
    ends: Tensor
    numbers: Tensor
    tails: Tensor
    knots: Tensor
    scores: Tensor
    slopes: Tensor
    reach: Tensor
    roundings: Tensor
    extent: Tensor

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.layout = layout
        self.model_dim = layout.width
        self.data_dim = len(layout.columns)
        self._piece_rows = max(1, PIECE_CELLS // max(self.data_dim, 1))
        self.hides = layout.hides
        columns, continuous = layout.columns, layout.continuous
        states = {variable.column: place for place, variable in enumerate(layout.variables)}
        self._levels = [column for column, kind in enumerate(columns) if kind.levels]
        self._level_places = [states[column] for column in self._levels]
        self._stateful = [place for place, column in enumerate(continuous) if column in states]
        self._state_places = [states[continuous[place]] for place in self._stateful]
        chosen = [columns[number] for number in continuous]
        self._spiked = [place for place, column in enumerate(chosen) if column.spikes]
        self.atoms = Levels([_atoms_of(chosen[place]) for place in self._spiked], hides=False)
        most = max((len(column.spikes) for column in chosen), default=0)
        padded = [[*sorted(c.spikes), *[math.inf] * (most - len(c.spikes))] for c in chosen]
        self._keep("spikes", padded)
        self.spikes = self.spikes.reshape(len(chosen), most)
        absent = HIDDEN if layout.hides else math.nan
        self._keep(
            "fill",
            [column.states - 1 if column.missing else absent for column in chosen],
        )
        gapped = [column.missing or layout.hides for column in columns]
        self.register_buffer("gapped", torch.tensor(gapped, dtype=torch.bool), persistent=False)
        self.levels = Levels([columns[number] for number in self._levels], hides=layout.hides)
        self._keep("grid", [0.0 if column.repeated else column.step for column in chosen])
        self._keep("noise", [max(column.step, column.noise) for column in chosen])
        self._repeated = [place for place, column in enumerate(chosen) if column.repeated]
        self.denoise = Denoise.of(chosen)
        limits = [[-math.inf if c.low is None else c.low for c in chosen]]
        limits.append([math.inf if c.high is None else c.high for c in chosen])
        self._keep("ends", limits)
        count = len(chosen)
        self.register_buffer("numbers", torch.zeros(len(_NUMBERS), count, dtype=torch.float64))
        for name, width in zip(_CURVES, (2, KNOTS, KNOTS, KNOTS, 2), strict=True):
            self.register_buffer(name, torch.zeros(count, width, dtype=torch.float64))
        shares = torch.zeros(count, DECADES, STEPS, dtype=torch.float64)
        self.register_buffer("roundings", shares)
        self.register_buffer("extent", endless(count))
        self.set_fits([_untrained(c.transform, c.low, c.high, c.step) for c in chosen])

    def _keep(self, name: str, values: object) -> None:
        tensor = torch.tensor(values, dtype=torch.float64)
        self.register_buffer(name, tensor, persistent=False)

    def set_fits(self, fits: list[ColumnFit]) -> None:
        """Set the maps of all continuous columns."""
        if not fits:
            return
        maps = FittedMaps.of(fits, [self.layout.columns[i] for i in self.layout.continuous])
        self.numbers.copy_(torch.stack(maps[1:7]))
        for name in _CURVES:
            getattr(self, name).copy_(getattr(maps, name))

    def set_roundings(self, rows: Batch) -> None:
        """Set how samples are rounded, and their extent: as the continuous values of training rows are."""
        values = rows[:, self.layout.continuous]
        seen = self.states(values) == 0
        for place in range(len(self.layout.continuous)):
            known = values[seen[:, place], place]
            if place not in self._repeated:
                self.roundings[place] = measure_roundings(known)
            if len(known) and place not in self.layout.circles:
                self.extent[:, place] = torch.stack([known.min(), known.max()])

    def _noise_widths(self) -> Tensor:
        return self.noise

    def _continuous(self, rows: Batch) -> Batch:
        values = rows[:, self.layout.continuous]
        return torch.where(self.states(values) == 0, values.double(), torch.nan)

    @property
    def maps(self) -> FittedMaps:
        """Maps of the continuous columns."""
        kinds = [self.layout.columns[number].transform for number in self.layout.continuous]
        low, high, centre, scale, mean, std = self.numbers.double().unbind(0)
        curves = [getattr(self, name).double() for name in _CURVES]
        return FittedMaps(kinds, low, high, centre, scale, mean, std, *curves)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *further: object
    ) -> None:
        """Load the buffers; a model from before maps had a reach, or samples were rounded, has none of these."""
        reach = torch.tensor([-ENDLESS, ENDLESS], dtype=torch.float64)
        state_dict.setdefault(f"{prefix}reach", reach.repeat(len(self.reach), 1))
        state_dict.setdefault(f"{prefix}roundings", torch.zeros_like(self.roundings))
        state_dict.setdefault(f"{prefix}extent", endless(len(self.reach)))
        super()._load_from_state_dict(state_dict, prefix, *further)

    @property
    def spreads(self) -> bool:
        return bool((self.noise > 0).any())

    def inverse(self, x: Batch) -> tuple[Tensor, PerRow]:
        rows, terms = self.encode(x)
        return rows, terms.sum(dim=1)

    def encode(self, x: Batch) -> tuple[Float[Tensor, "batch width"], Batch]:
        pieces = [self._encode(piece.double()) for piece in torch.split(x, self._piece_rows)]
        return torch.cat([rows for rows, _ in pieces]), torch.cat([terms for _, terms in pieces])

    def _encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self._without_infinite(x)
        result = x.new_zeros(x.shape[0], self.model_dim)
        terms = torch.zeros_like(x)
        if self._levels:
            result[:, self._level_places] = self.levels.encode(x[:, self._levels])
        if self.layout.continuous:
            values = x[:, self.layout.continuous]
            state = self.states(values)
            observed = state == 0
            inner = self.numbers[2].double()  # anywhere inside the bounds
            values = values.clamp(-LARGEST, LARGEST)
            y, log_slope = self.maps.inverse(torch.where(observed, values, inner))
            y = torch.where(state.isnan(), torch.nan, torch.where(observed, y, 0.0))
            result[:, len(self.layout.variables) :] = y
            result[:, self._state_places] = state[:, self._stateful]
            terms[:, self.layout.continuous] = torch.where(observed, log_slope, 0.0)
        return result, terms

    def _without_infinite(self, x: Batch) -> Batch:
        """Return rows with infinite cells as gaps, in columns that have such."""
        return torch.where(self.gapped & x.isinf(), torch.nan, x)

    def affine_columns(self) -> Bool[Tensor, " columns"]:
        kinds = torch.tensor([c.levels == 0 and c.transform == "none" for c in self.layout.columns])
        kinds[self.layout.continuous] &= (self.reach.abs() >= ENDLESS).all(dim=1).cpu()
        return kinds

    def is_complete(self, x: Batch) -> Bool[Tensor, " batch"]:
        """Return True for each row whose cells all have a state: a level, a value or a known gap."""
        x = self._without_infinite(x.double())
        unknown = [
            self.states(x[:, self.layout.continuous]),
            self.levels.encode(x[:, self._levels]),
        ]
        return ~torch.cat(unknown, dim=1).isnan().any(dim=1)

    def forward(self, y: Batch) -> tuple[Tensor, PerRow]:
        pieces = [self._decode(piece.double()) for piece in torch.split(y, self._piece_rows)]
        return torch.cat([rows for rows, _ in pieces]), torch.cat([total for _, total in pieces])

    def _decode(self, y: Tensor) -> tuple[Tensor, Tensor]:
        x = y.new_zeros(len(y), len(self.layout.columns))
        total = y.new_zeros(len(y))
        if self._levels:
            x[:, self._levels] = self.levels.decode(y[:, self._level_places])
        if self.layout.continuous:
            state = y.new_zeros(len(y), len(self.layout.continuous))
            state[:, self._stateful] = y[:, self._state_places]
            observed = state == 0
            values, log_det = self.maps.forward(y[:, len(self.layout.variables) :])
            total = total + torch.where(observed, log_det, 0.0).sum(dim=1)
            x[:, self.layout.continuous] = torch.where(observed, values, self._values_of(state))
        return x, total

    def spread(self, x: Batch, *, generator: torch.Generator) -> Batch:
        if not self.spreads:
            return x
        x = x.double()
        noise = (
            torch.rand(x.shape[0], len(self.grid), generator=generator, dtype=torch.float64) - 0.5
        )
        values = x[:, self.layout.continuous]
        noisy = values + noise.to(x.device) * self.noise
        x = x.clone()
        x[:, self.layout.continuous] = torch.where(self.states(values) == 0, noisy, values)
        return x

    def hide(self, rows: Batch, *, generator: torch.Generator) -> Batch:
        """Return rows of the model of which some cells are hidden, if cells can be.

        Half of the rows stay whole. Of half of the others one cell is hidden, of the rest a share of the
        cells that is drawn for each row.

        Args:
            rows: Rows of the model.
            generator: Generator of the draws, on the CPU.
        """
        if not self.layout.hides:
            return rows
        variables = self.layout.variables
        draws = torch.rand(len(rows), len(variables) + 2, generator=generator).to(rows.device)
        share = draws[:, 0] * (draws[:, 1] < HIDING_SHARE)
        hidden = draws[:, 2:] < share[:, None]
        of_one = draws[:, 1] < HIDING_SHARE * ONE_CELL_SHARE
        chosen = (draws[:, 0] * len(variables)).long().clamp(max=len(variables) - 1)
        places = torch.arange(len(variables), device=rows.device)
        hidden = torch.where(of_one[:, None], chosen[:, None] == places, hidden)
        rows = rows.clone()
        rows[:, : len(variables)].masked_fill_(hidden, HIDDEN)
        rows[:, len(variables) :].masked_fill_(hidden[:, self._state_places], 0.0)
        return rows

    def without(self, rows: Batch, column: int) -> Batch:
        """Return rows of the model with the cells of one column hidden.

        Args:
            rows: Rows of the model, of a layout that hides.
            column: Number of the column in the data.
        """
        layout = self.layout
        rows = rows.clone()
        place = next(i for i, v in enumerate(layout.variables) if v.column == column)
        rows[:, place] = HIDDEN
        if not layout.columns[column].levels:
            rows[:, len(layout.variables) + layout.continuous.index(column)] = 0.0
        return rows

    def to_grid(self, x: Batch) -> Batch:
        """Return rows whose continuous values are without noise, and rounded like those of training rows.

        They are on the grids of their columns, within the bounds, and not beyond the training rows.
        """
        if not self.layout.continuous:
            return x
        values = x[:, self.layout.continuous].double()
        plain = values if self.denoise is None else self.denoise.clean(values)
        step = torch.where(self.grid > 0, self.grid, 1.0)
        number, per_unit = torch.round(plain / step), torch.round(1 / step)
        # A hundredth is no binary number: a quotient of whole ones is as near as there is.
        divides = (per_unit * step - 1).abs() < 1e-9
        snapped = torch.where(divides, number / per_unit.clamp(min=1), number * step)
        snapped = torch.where(self.grid > 0, snapped, plain)
        snapped = round_like(snapped, self.roundings, self.spikes)
        snapped = self.maps.wrap(snapped).clamp(self.ends[0], self.ends[1])
        snapped = snapped.clamp(*self.extent.double())
        x = x.clone()
        x[:, self.layout.continuous] = torch.where(self.states(values) == 0, snapped, values).to(x)
        return x

    def states(self, values: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
        """Return the state of each numeric cell; NaN where it has none."""
        state = torch.where(values.isnan(), self.fill.double(), 0.0)
        state = torch.where(values.isinf(), torch.nan, state)
        if self._spiked:
            known = values[:, self._spiked]
            found = self.atoms.encode(torch.where(known.isfinite(), known, torch.nan)) + 1.0
            state[:, self._spiked] = torch.where(found > 0, found, state[:, self._spiked])
        return state

    def _values_of(self, state: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
        """Return the value of each spike; NaN for other states."""
        values = torch.full_like(state, torch.nan)
        if self._spiked:
            own = state[:, self._spiked] - 1.0
            values[:, self._spiked] = self.atoms.decode(torch.where(own < 0, torch.nan, own))
        return values


def _atoms_of(column: MixedColumn) -> MixedColumn:
    """Return the spikes of a column as levels, by which they are found."""
    return MixedColumn(levels=len(column.spikes), values=list(column.spikes))


@cache
def _untrained(
    transform: TransformName, low: float | None, high: float | None, step: float
) -> ColumnFit:
    column = MixedColumn(transform=transform, low=low, high=high, step=step)
    return fit_column(torch.linspace(-1, 1, 8, dtype=torch.float64), column)


def observed_values(encoding: TableEncoding, rows: Tensor, *, seed: int) -> list[Tensor]:
    """Return the continuous values of each numeric column, with the noise of its grid.

    Args:
        encoding: Encoding of the columns.
        rows: Rows of data.
        seed: Seed of the noise.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = encoding.spread(rows.double(), generator=generator)
    values = rows[:, encoding.layout.continuous]
    observed = encoding.states(values) == 0
    return [column[seen] for column, seen in zip(values.t(), observed.t(), strict=True)]
