"""Monitor of one process: it counts the rows of scores beside their requests, and looks for drift."""

import asyncio
import logging
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

import numpy as np
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.exposition import generate_latest

from app.engine.held_out_rows import HeldOutRows
from app.engine.reference_rows import data_rows
from app.metrics import RankMetrics
from app.rows.shape import Floats
from models_store.counts import Counts, added
from models_store.drift import (
    SAMPLED_ROWS,
    ColumnBins,
    Drift,
    count_ranks,
    count_reasons,
    count_sorted,
    drift_of,
    reference_count,
)
from models_store.errors import NotFoundError, StoreError
from models_store.files.blobs import Blobs
from models_store.monitoring import Monitoring, ScoredVersion
from models_store.records import Version
from models_store.registry import Registry

log = logging.getLogger(__name__)

_PAUSE_S = 60.0
_PRUNE_EVERY = 60  # pauses
# Counted together: that takes a few milliseconds of a thread, most of them the same for fewer rows.
_COUNTED_ROWS, _COUNTED_BYTES = 65_536, 2 * 2**20
_MOST_BINS = 256
_OVERLAP = timedelta(minutes=2)  # a row is seen when its transaction has ended, later than its time


class _Seen(NamedTuple):
    """Scores of one request; `rows` are some of its rows."""

    version: Version
    log_prob: Floats
    rows: Floats
    differences: Floats | None


@dataclass(frozen=True)
class _Found:
    day: int
    rows: int
    unusual: int
    drift: Drift


class Monitor:
    """Counter of scored rows, which belongs to one event loop; what a crash loses is a minute of counts.

    Args:
        metrics: Metrics that count ranks.
        most_shown: Number of versions whose drift metrics tell.
    """

    def __init__(
        self,
        monitoring: Monitoring,
        registry: Registry,
        blobs: Blobs,
        metrics: RankMetrics,
        *,
        most_shown: int = 100,
    ) -> None:
        self._monitoring, self._registry, self._blobs = monitoring, registry, blobs
        self._metrics, self._most_shown = metrics, most_shown
        self._seen: list[_Seen] = []
        self._rows = self._bytes = 0
        self._counts: dict[tuple[str, str, int], Counts] = {}
        self._bins: OrderedDict[str, ColumnBins | None] = OrderedDict()
        self._lock = asyncio.Lock()
        self._counting: asyncio.Task[None] | None = None
        self._looked_at: datetime | None = None
        self._found: dict[tuple[str, str, int], _Found] = {}

    def watch(self, version: Version, rows: Floats, values: Floats, *, differences: int) -> None:
        """Note the rows of a request, to be counted later.

        Args:
            rows: Rows of the model's columns, then its context.
            values: Their log densities in the first column; in the last ones, differences of explanations.
            differences: Number of these.
        """
        if version.held_out is None:
            return
        some = rows if len(rows) <= SAMPLED_ROWS else rows[:: -(-len(rows) // SAMPLED_ROWS)].copy()
        reasons = values[:, -differences:] if differences else None
        self._seen.append(_Seen(version, values[:, 0], some, reasons))
        self._rows += len(rows)
        self._bytes += some.nbytes + values.nbytes
        much = self._rows >= _COUNTED_ROWS or self._bytes >= _COUNTED_BYTES
        if much and (self._counting is None or self._counting.done()):
            self._counting = asyncio.create_task(self._count())

    async def run(self) -> None:
        """Write counts and look for drift now and then, for ever."""
        pauses = 0
        while True:
            await asyncio.sleep(_PAUSE_S)
            try:
                await self.flush()
                await self.look()
                if pauses % _PRUNE_EVERY == 0:
                    await asyncio.to_thread(self._monitoring.prune)
                pauses += 1
            except StoreError as error:
                log.warning("scores cannot be watched, trying again: %s", error)
            except Exception:  # all of it lives on this
                log.exception("scores cannot be watched")

    async def flush(self) -> None:
        """Write the counts of this process.

        Raises:
            StoreError: They cannot be written now, and are kept.
        """
        await self._count()
        while self._counts:
            key, counts = self._counts.popitem()
            try:
                await asyncio.to_thread(self._monitoring.add, *key, counts)
            except StoreError:
                self._counts[key] = added(self._counts.get(key, {}), counts)
                raise

    async def look(self) -> None:
        """Look for drift among the rows of today, and tell webhooks of it.

        Raises:
            StoreError: The counts cannot be read.
        """
        now, versions = await asyncio.to_thread(self._monitoring.scored, since=self._looked_at)
        self._looked_at = now - _OVERLAP
        for scored in versions:
            try:
                await asyncio.to_thread(self._judge, scored, now)
            except NotFoundError:  # deleted meanwhile
                log.debug("version %s:%s is gone", scored.name, scored.version)
        today = now.toordinal()
        self._found = {key: found for key, found in self._found.items() if found.day == today}

    def drift(self, version: Version, counts: Counts) -> Drift:
        """Return the drift of counted rows of a version; it reads files.

        Raises:
            Problem: `score-unavailable`.
        """
        bins = self.bins(version)
        ranks = held_out_counts(HeldOutRows.of(version))
        return drift_of(counts, ranks, None if bins is None else bins.reference)

    def bins(self, version: Version) -> ColumnBins | None:
        """Return the parts of the values of each column; None if the version's dataset is gone. It reads files."""
        key = version.checkpoint_key
        if key not in self._bins:
            columns = [*version.columns, *version.context_columns]
            try:
                rows = data_rows(
                    version, self._registry, self._blobs, reference_count(len(columns))
                )
            except StoreError:
                return None  # this time
            self._bins[key] = None if rows is None else ColumnBins.of(columns, rows)
            while len(self._bins) > _MOST_BINS:
                self._bins.popitem(last=False)
        return self._bins.get(key)

    def render(self) -> bytes:
        """Return the drift of today in the text format of Prometheus: of the versions with most rows."""
        registry, labels = CollectorRegistry(), ["project", "model", "version"]
        share, statistic, p_value = (
            Gauge(f"densityd_{name}", text, labels, registry=registry)
            for name, text in (
                ("unusual_share", "Share of the rows scored today (UTC) whose rank is below 1 %."),
                ("drift_statistic", "Distance of their ranks from those of held-out rows, 0 to 1."),
                ("drift_p_value", "Its p-value, with those of all columns; drifted below 0.001."),
            )
        )
        most = sorted(self._found.items(), key=lambda item: -item[1].rows)[: self._most_shown]
        for (project, name, version), found in most:
            its = project, name, str(version)
            share.labels(*its).set(found.unusual / max(1, found.rows))
            statistic.labels(*its).set(found.drift.statistic)
            p_value.labels(*its).set(found.drift.p_value)
        return generate_latest(registry)

    async def _count(self) -> None:
        async with self._lock:
            seen, self._seen, self._rows, self._bytes = self._seen, [], 0, 0
            if not seen:
                return
            of_versions: dict[str, list[_Seen]] = {}
            for one in seen:
                of_versions.setdefault(one.version.checkpoint_key, []).append(one)
            for some in of_versions.values():
                counts = await asyncio.to_thread(self._counted, some)
                version = some[0].version
                self._metrics.count(version.project, version.name, counts["ranks"])
                key = version.project, version.name, version.version
                self._counts[key] = added(self._counts.get(key, {}), counts)

    def _counted(self, seen: list[_Seen]) -> Counts:
        """Return the counts of some requests to one version."""
        version = seen[0].version
        held_out, bins = HeldOutRows.of(version), self.bins(version)
        ordered = np.sort(np.concatenate([one.log_prob for one in seen]))
        counts = count_sorted(ordered, held_out.rank)
        if bins is not None:
            counts["columns"] = bins.count(np.concatenate([one.rows for one in seen]))
        explained = [one for one in seen if one.differences is not None]
        if explained:
            ranks = held_out.rank(np.concatenate([one.log_prob for one in explained]))
            differences = [one.differences for one in explained if one.differences is not None]
            reasons = count_reasons(ranks, np.concatenate(differences), version.columns)
            counts["reasons"] = reasons
        return counts

    def _judge(self, scored: ScoredVersion, now: datetime) -> None:
        version = self._registry.version(scored.project, scored.name, scored.version)
        drift, counts = self.drift(version, scored.counts), scored.counts
        found = _Found(now.toordinal(), counts["rows"], counts["unusual"], drift)
        self._found[scored.project, scored.name, scored.version] = found
        if drift.has_drifted and not scored.announced:
            data = {
                "model": {"name": version.name, "version": version.version},
                "day": now.date().isoformat(),
                "rows": counts["rows"],
                "statistic": drift.statistic,
                "p_value": drift.p_value,
                "columns": drift.drifted,
                "url": f"/v1/models/{version.ref}/monitoring",
            }
            self._monitoring.announce(scored.project, scored.name, scored.version, data)


def held_out_counts(held_out: HeldOutRows) -> list[float]:
    """Return the number of held-out rows in each tenth of the ranks, which ties make uneven."""
    rows, quantiles = held_out.rows, held_out.quantiles
    if rows < len(quantiles):  # each row comes several times, the first one once
        quantiles = quantiles[np.arange(rows) * (len(quantiles) - 1) // max(1, rows - 1)]
    # Among the others: a row does not count itself.
    ranks = np.maximum((held_out.rank(quantiles) * (rows + 1) - 1) / rows, 0)
    return [count * rows / len(quantiles) for count in count_ranks(ranks)["ranks"]]
