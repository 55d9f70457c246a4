// Numbers, times and words as a person reads them.

const DIGITS = new Intl.NumberFormat("en", { maximumSignificantDigits: 4, useGrouping: "min2" }); // 1950 is often a year
const WHOLE = new Intl.NumberFormat("en", { useGrouping: "min2" });

export function number(value) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0"; // also for minus zero
  if (!Number.isFinite(value)) return String(value);
  if (Number.isInteger(value) && Math.abs(value) < 1e12) return WHOLE.format(value);
  const size = Math.abs(value);
  return size !== 0 && (size < 1e-3 || size >= 1e9) ? value.toExponential(3) : DIGITS.format(value);
}

const EXACT = new Intl.NumberFormat("en", { maximumFractionDigits: 12, useGrouping: "min2" });

/** Return a number with all its digits. */
export const exact = (value) => EXACT.format(value);

/** Return a log density: two decimals. The file of an imported version may have anything in its place. */
export const nats = (value) => (typeof value === "number" ? value.toFixed(2) : "–");

export const percent = (share) => (share > 0 && share < 0.001 ? "< 0.1 %" : `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`);

export function bytes(count) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (count >= 1000 && unit < units.length - 1) {
    count /= 1000;
    unit += 1;
  }
  return `${unit ? count.toFixed(1) : count} ${units[unit]}`;
}

export function seconds(count) {
  if (count === null || count === undefined) return "–";
  if (count < 1) return "under a second";
  if (count < 90) return `${Math.round(count)} s`;
  if (count < 5400) return `${Math.round(count / 60)} min`;
  return `${(count / 3600).toFixed(1)} h`;
}

export function ago(time) {
  const passed = (Date.now() - Date.parse(time)) / 1000;
  if (passed < 5) return "just now";
  if (passed < 86400 * 2) return `${seconds(passed)} ago`;
  return new Date(time).toLocaleDateString();
}

export const day = (epoch) => new Date(epoch * 1000).toISOString().slice(0, 16).replace("T", " ");

/** Return two times as a range; days alone where both are midnights. */
export function days(low, high) {
  const length = low % 86400 || high % 86400 ? 16 : 10;
  return `${day(low).slice(0, length)} to ${day(high).slice(0, length)}`;
}

export const plural = (count, noun, nouns = `${noun}s`) => `${number(count)} ${count === 1 ? noun : nouns}`;

/** Return the name of a family of flows. */
export const familyName = (family) => family.toUpperCase().replaceAll("_", " ");

/** Return a cell of a table as text. */
export const cell = (value) => (value === null || value === undefined ? "" : typeof value === "number" ? String(value) : `${value}`);
