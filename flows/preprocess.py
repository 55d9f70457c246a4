"""Preprocessing between the data and the model: elementwise layers without weights, in float64."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from flows.bijections.base import Batch, Bijection, Given, Mapped, PerRow, Terms
from flows.bijections.observed import Observed, refuse_mask
from flows.specs.columns import MixedColumn
from flows.specs.preprocessing import DENOISE_KNOTS

# Values of a column, in training rows and in samples, that its map is fitted to at least.
_FEWEST_DRAWN = 50


class Preprocessing(nn.Module):
    """Preprocessing from data to model: dequantise (in training only), rescale, logit, standardise.

    All are elementwise maps. `spread` adds uniform noise to the columns whose values repeat, which gives
    a discrete column a density that exists (dequantisation, Uria et al. 2013). Scored
    rows are taken as they are: the centre of their noise. It is as wide as the step of a column, or wider:
    a value that many rows share needs wider noise, and a column
    that repeats its values without a grid has no step. `denoise` takes such noise off samples again.
    `extent` holds the least and the greatest training value of each column, beyond which no sample lies.

    Attributes:
        data_dim: Number of columns of the data; 0 if rows of the model have the same.
        hides: True if cells of training rows are hidden, drawn anew in each epoch.
    """

    data_dim: int = 0
    hides: bool = False
    steps: Tensor | None
    widths: Tensor | None
    extent: Tensor | None

    def __init__(
        self,
        *,
        columns: Sequence[MixedColumn] | None = None,
        rescale: "Rescale | None" = None,
        logit: "Logit | None" = None,
        standardise: "Standardise | None" = None,
    ) -> None:
        """Initialise the layers.

        Args:
            columns: Steps, noise and repeated values of the columns; None where training rows are taken
                as they are, and samples as they come.
        """
        super().__init__()
        steps = widths = extent = None
        if columns is not None:
            steps = torch.tensor([column.step for column in columns], dtype=torch.float64)
            noise = torch.tensor([column.noise for column in columns], dtype=torch.float64)
            widths, extent = torch.maximum(steps, noise), endless(len(columns))
        self.register_buffer("extent", extent)
        self.denoise = Denoise.of(columns or [])
        self.register_buffer("steps", steps)
        self.register_buffer("widths", widths)
        self.rescale = rescale
        self.logit = logit
        self.standardise = standardise

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *further: object
    ) -> None:
        """Load the buffers; models of earlier releases lack what they had no noise or bounds for."""
        if self.steps is not None and self.extent is not None:
            steps = state_dict.setdefault(f"{prefix}steps", torch.zeros_like(self.steps))
            state_dict.setdefault(f"{prefix}widths", steps)
            state_dict.setdefault(f"{prefix}extent", self.extent)
        super()._load_from_state_dict(state_dict, prefix, *further)

    def fit(self, rows: Batch) -> None:
        """Fit the extent of samples and the maps that take noise off them to training rows, without a context."""
        if self.extent is not None:
            self.extent.copy_(torch.stack([rows.amin(dim=0), rows.amax(dim=0)]))
        self.fit_denoise(rows)

    def fit_denoise(self, rows: Batch) -> None:
        """Fit the maps that take noise off samples to training rows."""
        widths = self._noise_widths()
        if self.denoise is None or widths is None:
            return
        values = self._continuous(rows)
        for row, place in enumerate(self.denoise.places.tolist()):
            known = values[values[:, place].isfinite(), place]
            if len(known) > 1:
                pair = with_noise(known, widths[place])
                self.denoise.set(row, *pair, stepped=bool(self.denoise.stepped[row] > 0))

    @property
    def spreads(self) -> bool:
        """True if `spread` changes anything."""
        widths = self._noise_widths()
        return widths is not None and bool((widths > 0).any())

    def _noise_widths(self) -> Tensor | None:
        return self.widths

    def layers(self) -> list[Bijection]:
        """Return the active layers, from the data to the model."""
        every = (self.rescale, self.logit, self.standardise)
        return [layer for layer in every if layer is not None]

    def forward(self, y: Batch) -> tuple[Batch, PerRow]:
        """Map the model's space to data, with the log-determinant."""
        total = y.new_zeros(len(y), dtype=torch.float64)
        for layer in reversed(self.layers()):
            y, log_det = layer.forward(y.double())
            total = total + log_det
        return y, total

    def inverse(self, x: Batch) -> tuple[Batch, PerRow]:
        """Map data to the model's space, with the log-determinant."""
        total = x.new_zeros(x.shape[0], dtype=torch.float64)
        for layer in self.layers():
            x, log_det = layer.inverse(x.double())
            total = total + log_det
        return x, total

    def encode(self, x: Batch) -> tuple[Batch, Batch]:
        """Map data to the model's space, with the term of the log-determinant of each column."""
        total = torch.zeros_like(x, dtype=torch.float64)
        for layer in self.layers():
            x, log_slopes = layer.inverse_terms(x.double())
            total = total + log_slopes
        return x, total

    def affine_columns(self) -> Bool[Tensor, " #dim"]:
        """Return True for each column that is an affine function of its value in the model's space."""
        return torch.tensor([all(layer.is_affine for layer in self.layers())])

    def is_complete(self, x: Batch) -> Bool[Tensor, " batch"]:
        """Return True for each row that lacks no value: all are finite."""
        return x.isfinite().all(dim=1)

    def spread(self, x: Batch, *, generator: torch.Generator) -> Batch:
        """Return rows with uniform noise on the discrete values; the noise is drawn on the CPU."""
        widths = self._noise_widths()
        if widths is None or not self.spreads:
            return x
        noise = torch.rand(x.shape, generator=generator, dtype=torch.float64) - 0.5
        return x.double() + noise.to(x.device) * widths.to(x.device)

    def hide(self, rows: Batch, *, generator: torch.Generator) -> Batch:
        """Return rows of the model for training: here they are as they were."""
        return rows

    def calibrate(self, rows: Batch, drawn: Batch) -> None:
        """Fit the maps that take noise off samples to those that the trained flow draws.

        A value then has the share of the samples that it has of the training rows, whatever the flow has
        not learnt of its noise.

        Args:
            rows: Training rows, without a context.
            drawn: Rows that the flow draws, before `to_grid`.
        """
        if self.denoise is None:
            return
        values, noisy = self._continuous(rows), self._continuous(drawn)
        for row, place in enumerate(self.denoise.places.tolist()):
            pair = [part[part[:, place].isfinite(), place] for part in (values, noisy)]
            if min(map(len, pair)) >= _FEWEST_DRAWN:
                self.denoise.set(row, *pair, stepped=bool(self.denoise.stepped[row] > 0))

    def _continuous(self, rows: Batch) -> Batch:
        """Return the values of the columns that maps of samples are for; NaN where there is none."""
        return rows

    def to_grid(self, x: Batch) -> Batch:
        """Return samples without the wide noise, their discrete columns rounded to their steps."""
        if self.denoise is not None:
            x = self.denoise.clean(x)
        if self.extent is not None:
            x = x.clamp(self.extent[0].to(x), self.extent[1].to(x))
        if self.steps is None:
            return x
        discrete = self.steps > 0
        if self.denoise is not None:  # these are values of training rows to the last digit
            discrete[self.denoise.places[self.denoise.stepped[:, 0] > 0]] = False
        step = torch.where(discrete, self.steps, 1.0).to(x)
        rounded = torch.round(x / step) * step
        if self.rescale is not None:
            rounded = rounded.clamp(0, self.rescale.levels - 1)
        return torch.where(discrete, rounded + 0.0, x)  # no -0.0


class Denoise(nn.Module):
    """Monotone maps of samples of columns with wide noise to the values that training rows have.

    A value that many rows share gets noise much wider than the distance to its neighbours, so that its
    density is bounded; a sample would be spread as widely. Each map takes the quantiles of the values
    with noise to those of the values: a sample keeps its rank, and the shared value its share. Beyond
    the training rows samples are shifted, unless the last value is one that many rows share: it is an
    end then. Densities are those of the values with noise.

    A column that repeats its values has steps instead: a sample is one of the values, halfway between two
    of them the nearest where there is no noise.

    Attributes:
        places: Numbers of the columns.
        stepped: 1 for columns whose samples are the plain quantiles alone, else 0.
        noisy: Quantiles of the values with noise, in ascending order.
        plain: Quantiles of the values at the same shares.
    """

    places: Tensor
    stepped: Tensor
    noisy: Tensor
    plain: Tensor

    def __init__(self, columns: int, knots: int = DENOISE_KNOTS) -> None:
        super().__init__()
        self.register_buffer("places", torch.arange(columns))
        self.register_buffer("stepped", torch.zeros(columns, 1))
        for name in ("noisy", "plain"):
            quantiles = torch.arange(knots, dtype=torch.float64).repeat(columns, 1)
            self.register_buffer(name, quantiles)

    @classmethod
    def of(cls, columns: Sequence[MixedColumn]) -> "Denoise | None":
        """Return the maps of the columns with wide noise or repeated values, not fitted yet; None if there are none."""
        places = [place for place, c in enumerate(columns) if c.noise > c.step or c.repeated]
        if not places:
            return None
        maps = cls(len(places), max(DENOISE_KNOTS, *(column.repeated for column in columns)))
        maps.places.copy_(torch.tensor(places))
        stepped = [float(columns[place].repeated > 0) for place in places]
        maps.stepped.copy_(torch.tensor(stepped)[:, None])
        return maps

    def set(
        self,
        row: int,
        values: Float[Tensor, " rows"],
        noisy: Float[Tensor, " samples"],
        *,
        stepped: bool,
    ) -> None:
        """Set the map of one column, from its values in training rows and values with noise of as many or other rows."""
        values, knots = values.double().cpu().sort().values, self.plain.shape[1]
        at = _ends_of_runs(values, knots) if stepped else _knots(values, knots)
        self.stepped[row], self.plain[row] = float(stepped), values[at]
        shares = (at.double() + (1.0 if stepped else 0.5)) / len(values)
        self.noisy[row] = _quantiles(noisy.double().cpu().sort().values, shares)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *further: object
    ) -> None:
        """Load the maps; those of earlier models have no steps."""
        state_dict.setdefault(f"{prefix}stepped", torch.zeros_like(self.stepped))
        super()._load_from_state_dict(state_dict, prefix, *further)

    def check(self, dim: int) -> None:
        """Check maps that were read from a file.

        Raises:
            ValueError: A column is not there, or quantiles do not ascend.
        """
        ordered = all(bool((q.diff(dim=1) >= 0).all()) for q in (self.noisy, self.plain))
        known = bool(((self.places >= 0) & (self.places < dim)).all())
        if not (known and ordered):
            raise ValueError("the maps of samples are not those of columns")

    def clean(self, x: Batch) -> Batch:
        """Return rows without the noise."""
        x = x.clone()
        values = x[:, self.places].double().t().contiguous()
        last = self.plain.shape[1] - 1
        at = torch.searchsorted(self.noisy, values)
        nearest = self.plain.gather(1, at.clamp(max=last))
        above = at.clamp(1, last)
        ends = [q.gather(1, at) for q in (self.noisy, self.plain) for at in (above - 1, above)]
        low, high, start, stop = ends
        share = ((values - low) / (high - low).clamp(min=1e-300)).clamp(0, 1)
        found = start + share * (stop - start)
        found += (values - self.noisy[:, -1:]).clamp(min=0) * (
            self.plain[:, -1:] > self.plain[:, -2:-1]
        )
        found += (values - self.noisy[:, :1]).clamp(max=0) * (
            self.plain[:, :1] < self.plain[:, 1:2]
        )
        x[:, self.places] = torch.where(self.stepped > 0, nearest, found).t().to(x)
        return x


def endless(columns: int) -> Tensor:
    """Return an extent of samples that bounds nothing."""
    ends = torch.tensor([-math.inf, math.inf], dtype=torch.float64)
    return ends[:, None].repeat(1, columns)


def with_noise(
    values: Float[Tensor, " rows"], width: Float[Tensor, ""]
) -> tuple[Float[Tensor, " rows"], Float[Tensor, " rows"]]:
    """Return ascending values, and the same with uniform noise."""
    values = values.double().cpu().sort().values
    noise = torch.rand(len(values), generator=torch.Generator().manual_seed(0)) - 0.5
    return values, values + noise * width.cpu()


def _quantiles(ordered: Float[Tensor, " rows"], shares: Tensor) -> Tensor:
    """Return quantiles of ascending values, the k-th of which has k - 1/2 rows below."""
    place = (shares * len(ordered) - 0.5).clamp(0, len(ordered) - 1)
    below = place.floor().long()
    above = (below + 1).clamp(max=len(ordered) - 1)
    return torch.lerp(ordered[below], ordered[above], place - below)


def _ends_of_runs(ordered: Float[Tensor, " rows"], count: int) -> Tensor:
    """Return the last place of each of the most frequent values among ascending ones, some twice."""
    counts = torch.unique_consecutive(ordered, return_counts=True)[1]
    kept = counts.argsort(descending=True, stable=True)[:count].sort().values
    ends = counts.cumsum(0)[kept] - 1
    return torch.cat([ends, ends[-1:].expand(count - len(ends))])


def _knots(ordered: Float[Tensor, " rows"], count: int) -> Tensor:
    """Return places of quantiles among ascending values: evenly spread, and the ends of the longest run."""
    last = len(ordered) - 1
    even = torch.linspace(0, last, count - 2, dtype=torch.float64).round().long()
    values, counts = torch.unique(ordered, return_counts=True)
    longest = counts.argmax()
    first = torch.searchsorted(ordered, values[longest])
    return torch.cat([even, first[None], (first + counts[longest] - 1)[None]]).sort().values


class Standardise(Bijection):
    """Standardisation u = (x - mean) / std, in float64."""

    is_affine = True
    mean: Tensor
    std: Tensor

    def __init__(self, mean: Float[Tensor, " dim"], std: Float[Tensor, " dim"]) -> None:
        super().__init__()
        if not (torch.isfinite(mean).all() and torch.isfinite(std).all() and (std > 0).all()):
            raise ValueError("standardisation needs finite means and positive, finite deviations")
        self.dim = len(mean)
        self.register_buffer("mean", mean.double().clone())
        self.register_buffer("std", std.double().clone())

    def forward(self, u: Batch, context: Given = None, observed: Observed = None) -> Mapped:
        refuse_mask(observed)
        return u * self.std + self.mean, self.std.log().sum().expand(u.shape[0])

    def inverse(self, x: Batch, context: Given = None, observed: Observed = None) -> Mapped:
        refuse_mask(observed)
        return (x - self.mean) / self.std, -self.std.log().sum().expand(x.shape[0])

    def inverse_terms(self, x: Batch, context: Given = None, observed: Observed = None) -> Terms:
        return self.inverse(x)[0], -self.std.log().expand_as(x)


class Rescale(Bijection):
    """Rescaling u = (x + 1/2) / levels of integers 0 to levels - 1, with their noise, to (0, 1)."""

    is_affine = True

    def __init__(self, dim: int, levels: int) -> None:
        super().__init__()
        self.dim = dim
        self.levels = levels

    def forward(self, u: Batch, context: Given = None, observed: Observed = None) -> Mapped:
        refuse_mask(observed)
        return u * self.levels - 0.5, u.new_full((u.shape[0],), self.dim * math.log(self.levels))

    def inverse(self, x: Batch, context: Given = None, observed: Observed = None) -> Mapped:
        refuse_mask(observed)
        log_det = x.new_full((x.shape[0],), -self.dim * math.log(self.levels))
        return (x + 0.5) / self.levels, log_det

    def inverse_terms(self, x: Batch, context: Given = None, observed: Observed = None) -> Terms:
        return self.inverse(x)[0], torch.full_like(x, -math.log(self.levels))


class Logit(Bijection):
    """Logit layer u = logit(lambda + (1 - 2 lambda) x) (Papamakarios et al. 2017, section 4.3).

    x is within (-lambda / (1 - 2 lambda), 1 + lambda / (1 - 2 lambda)); outside the result is NaN,
    and the density of the row 0.
    """

    def __init__(self, dim: int, margin: float) -> None:
        super().__init__()
        self.dim = dim
        self.margin = margin

    def forward(self, u: Batch, context: Given = None, observed: Observed = None) -> Mapped:
        refuse_mask(observed)
        x = (torch.sigmoid(u) - self.margin) / (1 - 2 * self.margin)
        return x, -self._log_slope(u).sum(dim=1)

    def inverse(self, x: Batch, context: Given = None, observed: Observed = None) -> Mapped:
        refuse_mask(observed)
        u, log_slopes = self.inverse_terms(x)
        return u, log_slopes.sum(dim=1)

    def inverse_terms(self, x: Batch, context: Given = None, observed: Observed = None) -> Terms:
        u = torch.logit(self.margin + (1 - 2 * self.margin) * x)
        return u, self._log_slope(u)

    def _log_slope(self, u: Tensor) -> Tensor:
        """Return log du/dx, where 1 / du/dx = sigmoid(u) sigmoid(-u) / (1 - 2 lambda)."""
        log_sigmoid = torch.nn.functional.logsigmoid
        return math.log(1 - 2 * self.margin) - log_sigmoid(u) - log_sigmoid(-u)
