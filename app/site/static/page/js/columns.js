// Columns of tables in a table: what each holds, in a line.
import { html } from "../vendor/vendor.js";
import { days, number, percent, plural } from "./format.js";
import { isScale, levelsOf } from "./table.js";

const WIDTH = 96;
const HEIGHT = 16;
const BARS = 24;
const SHOWN = 4;

/** Return the range of a column, or its values, in words. */
export function rangeOf(column) {
  if (column.type === "ignored") return "";
  if (column.levels.length === 1) return `always ${column.levels[0]}`;
  if (column.levels.length) {
    const levels = levelsOf(column);
    return levels.length <= SHOWN ? levels.join(", ") : `${levels.slice(0, SHOWN - 1).join(", ")} and ${levels.length - SHOWN + 1} more`;
  }
  if (column.min === null) return "";
  return column.type === "datetime" ? days(column.min, column.max) : `${number(column.min)} to ${number(column.max)}`;
}

/** Return the share of missing cells as text; nothing if there are none. */
export const missingOf = (column, rows) => (column.missing_count > 0 ? percent(column.missing_count / rows) : "");

/** The shape of a column: counts of its values from the least to the largest, or of its levels. */
export function Sparkline({ column, numbers, rows }) {
  const heights = column.levels.length ? column.level_counts.slice(0, BARS).map((count) => count / rows) : isScale(column) ? binned(numbers) : [];
  const top = Math.max(...heights, 0);
  if (!top) return null;
  const step = WIDTH / Math.max(heights.length, 4);
  const bars = heights.map((height, at) => {
    const size = Math.max(height > 0 ? 1 : 0, (height / top) * HEIGHT);
    return `M${(at * step).toFixed(1)} ${HEIGHT}v${-size.toFixed(1)}h${(step - 1).toFixed(1)}V${HEIGHT}z`;
  });
  return html`<svg class="spark" viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} width=${WIDTH} height=${HEIGHT} aria-hidden="true"><path d=${bars.join("")} /></svg>`;
}

/** Return the shares of values in bins between their 1st and 99th percentile. */
function binned(values) {
  const known = Float64Array.from(values.filter((value) => !Number.isNaN(value))).sort();
  if (!known.length) return [];
  const at = (share) => known[Math.min(known.length - 1, Math.floor(share * known.length))];
  const [low, high] = [at(0.01), at(0.99)];
  const counts = new Array(BARS).fill(0);
  for (const value of known) if (value >= low && value <= high) counts[Math.min(BARS - 1, Math.floor((BARS * (value - low)) / (high - low || 1)))] += 1;
  return counts.map((count) => count / known.length);
}

/** Return a text without its sentences about options of the API, which have buttons here. */
const told = (detail) => detail.split(/(?<=\.) /).filter((sentence, at) => at === 0 || !/\b[a-z_]+=/.test(sentence)).join(" ");

/** Warnings with a button for each option that mends them; `apply` gets the remedy, `can` says which it can do. */
export function Warnings({ warnings, apply, can = () => true, busy }) {
  if (!warnings.length) return null;
  const mends = ({ remedies }) => Math.max(0, ...remedies.filter(can).map(({ value }) => (value === null ? 1 : 2)));
  const shown = [...warnings].sort((one, other) => mends(other) - mends(one));
  const list = (some) => html`<ul class="remarks">${some.map((warning) => html`<li key=${`${warning.code} ${warning.column} ${warning.detail}`}>
    <span>${warning.column && html`<strong>${warning.column}: </strong>`}${mends(warning) ? told(warning.detail) : warning.detail}</span>
    ${warning.remedies.filter(can).map((remedy) => html`<button key=${remedy.label} type="button" disabled=${busy} onClick=${() => apply(remedy)}
      aria-label=${warning.column ? `${remedy.label}: ${warning.column}` : remedy.label}>${remedy.label}</button>`)}</li>`)}</ul>`;
  return html`<section class="note warn" aria-label="Warnings"><strong>${plural(warnings.length, "thing")} to know about this table</strong>
    ${list(shown.slice(0, 6))}
    ${shown.length > 6 && html`<details><summary>Show all</summary>${list(shown.slice(6))}</details>`}</section>`;
}
