// Scales of axes: their limits and ticks, and curved ones that show the tails of a column.
import { day, number } from "./format.js";

/** Return about `count` round numbers between two numbers. */
function ticks(low, high, count) {
  const span = high - low || 1;
  const rough = span / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const found = [];
  for (let at = Math.ceil(low / step); at * step <= high + step * 1e-9; at += 1) found.push(at * step);
  return found;
}

const DAY = 86400;
const TIMES = [1, 5, 15, 60, 300, 900, 3600, 3 * 3600, 6 * 3600, 12 * 3600, DAY, 2 * DAY, 7 * DAY, 14 * DAY];
const MONTH = 30.5 * DAY;
const MONTHS = [1, 3, 6, 12, 24, 60, 120, 240, 600, 1200, 2400, 6000, 12000];

/** Return about `count` round times between two, in seconds since 1970, each with its name. */
function timeTicks(low, high, count) {
  const rough = (high - low) / (count + 1);
  const step = TIMES.find((size) => size >= rough);
  const found = [];
  if (step !== undefined) {
    for (let at = Math.ceil(low / step) * step; at <= high; at += step) found.push([at, step < DAY ? day(at).slice(5) : day(at).slice(0, 10)]);
    return found;
  }
  const months = MONTHS.find((size) => size * MONTH >= rough) ?? MONTHS.at(-1);
  const first = new Date(1000 * low);
  for (let month = Math.floor((12 * first.getUTCFullYear() + first.getUTCMonth()) / months) * months; ; month += months) {
    const at = new Date(0).setUTCFullYear(Math.floor(month / 12), month % 12, 1) / 1000;
    if (!(at <= high)) return found;
    if (at >= low) found.push([at, day(at).slice(0, months < 12 ? 7 : 4)]);
  }
}

/** Return the sorted finite numbers of a list. */
export const finite = (values) => Float64Array.from(values.filter(Number.isFinite)).sort();

/** Return the quantile of sorted numbers. */
export function quantile(sorted, share) {
  const at = share * (sorted.length - 1);
  const below = Math.floor(at);
  return sorted[below] + (at - below) * ((sorted[below + 1] ?? sorted[below]) - sorted[below]);
}

/** Return the limits that show 99.6 % of sorted numbers, so that one far value hides nothing. */
export function limits(...lists) {
  const filled = lists.filter((list) => list.length);
  if (!filled.length) return [0, 1];
  const low = Math.min(...filled.map((list) => quantile(list, 0.002)));
  const high = Math.max(...filled.map((list) => quantile(list, 0.998)));
  const edge = (high - low || Math.abs(high) || 1) * 0.02;
  return [low - edge, high + edge];
}

// As on the drawn plots: a column that is positive and reaches so many medians is shown by its
// logarithm; one that reaches so many times the range of its middle half by its inverse hyperbolic sine.
const LOG_REACH = 30;
const WIDE_REACH = 60;

const same = (value) => value;
/** Scale of an axis: `to` gives the place of a number, `ticks` the named ticks between two places. */
export const LINEAR = { to: same, ticks: (low, high, count) => ticks(low, high, count).map((value) => [value, number(value)]) };
const DATES = { to: same, ticks: timeTicks };

const POWERS = Array.from({ length: 25 }, (_, at) => 10 ** (at - 12));
const TICKS = [0, ...POWERS.map((power) => -power).reverse(), ...POWERS]; // the first has its name before others

function curved(to, from) {
  const named = (values) => values.map((value) => [to(value), value && Math.abs(value) < 1e-3 ? value.toExponential(0) : number(value)]);
  return {
    to,
    ticks: (low, high, count) => {
      const found = [];
      for (const [place, name] of named(TICKS)) {
        const isApart = found.every(([other]) => Math.abs(place - other) > (high - low) / (count + 2));
        if (place >= low && place <= high && isApart) found.push([place, name]);
      }
      return found.length > 1 ? found : named(ticks(from(low), from(high), count));
    },
  };
}

/** Return the scale that shows a column, by its sorted numbers. */
export function scaleOf(sorted, dates) {
  if (dates) return DATES;
  const [low, lower, median, upper, high] = [0.001, 0.25, 0.5, 0.75, 0.999].map((share) => quantile(sorted, share));
  if (low > 0 && high / median > LOG_REACH) return curved((value) => (value > 0 ? Math.log(value) : NaN), Math.exp);
  const middle = upper - lower;
  if (middle > 0 && high - low > WIDE_REACH * middle && Math.abs(median) < middle) {
    return curved((value) => Math.asinh(value / middle), (place) => middle * Math.sinh(place));
  }
  return LINEAR;
}
