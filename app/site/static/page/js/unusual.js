// The least likely rows of a table with the reasons: reviewed, explained, downloaded.
import { html, useEffect, useRef, useState } from "../vendor/vendor.js";
import { call, request } from "./api.js";
import { cell, exact, nats, number, percent, plural } from "./format.js";
import { save } from "./rows.js";
import { CopyButton, Elsewhere, Loaded, More, origin, Parts, ProblemNote, useAction, useLoaded, useMore } from "./widgets.js";

const FIRST = 20; // rows that are shown
const PAGE = 100; // rows of a response, at most
const FILE_ROWS = 1000; // of a download, at most
const CHIPS = 2; // reasons beside a row
const RARE = 0.01; // rank from which on rows are flagged, to begin with
const FILES = [["CSV", "csv", "text/csv"], ["Excel", "xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"]];

/** The least likely rows that a version was trained on. */
export const Unusual = ({ version: { name, version }, row }) => html`
  <${UnusualRows} path=${`/v1/models/${name}:${version}/unusual?`} address=${`#/models/${name}/${version}/unusual`} row=${row} />
  <${Elsewhere} curl=${`curl -s "${origin}/v1/models/${name}:${version}/unusual?limit=${FIRST}"`}
    python=${`from densityd.client import Client\n\nwith Client("${origin}") as client:\n    print(client.models.unusual("${name}:${version}", limit=${FIRST}))`} shell=${`densityd unusual ${name}:${version}`} />`;

/** Load the first rows of a list, and those up to a certain one, after those that are known. */
async function load(path, count, row, known, signal) {
  for (let found = known; ; ) {
    const isFound = row === undefined || found?.rows.some((one) => one.row === row - 1);
    if (found && isFound && found.rows.length >= Math.min(count, found.kept_rows)) return found;
    if (found && found.rows.length >= found.kept_rows) return { ...found, rows: found.rows.slice(0, count) };
    const offset = found?.rows.length ?? 0;
    const page = await call(`${path}limit=${offset ? PAGE : Math.min(PAGE, count)}&offset=${offset}`, { signal });
    found = { ...page, kept_rows: page.rows.length ? page.kept_rows : offset, rows: [...(found?.rows ?? []), ...page.rows] };
  }
}

/** Rows of a list of unusual ones; `row` counts from 1 and is shown explained, at its own address. */
export function UnusualRows({ path, address, row }) {
  const more = useMore(FIRST, PAGE);
  const known = useRef(undefined);
  const loaded = useLoaded(async (signal) => { known.current = await load(path, more.shown, row, known.current, signal); return known.current; }, [path, more.shown]);
  const asked = useRef(row);
  useEffect(() => {
    if (row === asked.current) return;
    asked.current = row;
    if (row !== undefined && !loaded.value?.rows.some((one) => one.row === row - 1)) loaded.again();
  }, [row]);
  if (loaded.problem?.type?.endsWith("/unusual-unavailable")) return html`<p class="note">${loaded.problem.message}</p>`;
  return html`<${Loaded} of=${loaded}>${(found) => html`<${Listed} found=${found} path=${path} address=${address} row=${row} loading=${loaded.loading} more=${{ ...more, shown: found.rows.length }} />`}<//>`;
}

function Listed({ found, path, address, row, loading, more }) {
  const { thresholds, total_rows: total, kept_rows: kept, held_out: heldOut } = found;
  const [place, setPlace] = useState(() => Math.max(0, thresholds.findLastIndex(({ rank }) => rank <= RARE), thresholds.findIndex(({ rows }) => rows > 0)));
  const threshold = thresholds[place];
  const [reviews, setReviews] = useState({});
  const review = useAction(async ({ digest }, value) => {
    const target = `/v1/models/${found.model.split(":")[0]}/reviews/${digest}`;
    await (value ? call(target, { method: "PUT", json: { review: value } }) : call(target, { method: "DELETE" }));
    setReviews((now) => ({ ...now, [digest]: value }));
  });
  const download = useAction(async (suffix, type) => {
    const response = await request(`${path}limit=${FILE_ROWS}&max_rank=${threshold.rank}`, { headers: { Accept: type } });
    save(`${found.model.replace(":", "-")}-unusual.${suffix}`, await response.blob());
  });
  const opened = row === undefined ? null : found.rows.find((one) => one.row === row - 1);
  const reviewOf = (one) => (one.digest in reviews ? reviews[one.digest] : one.review);
  return html`<section class="card"><h2>The ${plural(found.rows.length, "least likely row")}<span class="soft"> of ${number(total)}</span></h2>
    <p class="hint">${heldOut && `The rank of a row is the share of ${plural(heldOut.rows, "held-out row")} that are at most as likely. `}The reasons are values that do not fit the others of their row; the number of a row explains it.</p>
    ${threshold && html`<div class="threshold"><label for="threshold">Flag rows up to rank ${percent(threshold.rank)}</label>
      <input id="threshold" type="range" min="0" max=${thresholds.length - 1} value=${place} aria-valuetext=${flagged(threshold, total)} onInput=${(event) => setPlace(Number(event.target.value))} />
      <output for="threshold">${flagged(threshold, total)}</output>
      <span class="row">${FILES.map(([title, suffix, type]) => html`<button key=${suffix} type="button" disabled=${download.busy || !threshold.rows} aria-label=${`Download the flagged rows as ${title}`} onClick=${() => download.run(suffix, type)}>Download ${title}</button>`)}</span></div>`}
    <${ProblemNote} problem=${download.problem ?? review.problem} />
    ${row !== undefined && !opened && html`<p class="note warn" role="status">${loading ? `Looking for row ${row}…` : `Row ${row} is not among the ${number(kept)} least likely rows.`}</p>`}
    <div class="scroll unusual" tabindex="0" role="region" aria-label="Unusual rows"><table>
      <thead><tr><th scope="col" class="number">Row</th><th scope="col" class="number">Rank</th><th scope="col">Reasons</th><th scope="col">Review</th>
        ${found.columns.map((name) => html`<th key=${name} scope="col">${name}</th>`)}</tr></thead>
      <tbody><${Parts} of=${found.rows}>${(one) => html`<tr key=${one.row} class=${one === opened ? "marked" : ""}>
        <td class="number"><a href=${`${address}/${one.row + 1}`} aria-label=${`Explain row ${one.row + 1}`} aria-current=${one === opened ? "true" : undefined}>${one.row + 1}</a>${one.held_out && html`<br /><span class="soft">held out</span>`}</td>
        <td class="number">${threshold && one.rank <= threshold.rank ? html`<span class="state warn">${percent(one.rank)}</span>` : one.rank === null ? "–" : percent(one.rank)}</td>
        <td class="reasons">${one.reasons.slice(0, CHIPS).map((reason) => html`<span key=${reason.column} class="reason">${inWords(reason)}</span>`)}</td>
        <td><span class="row">${REVIEWS.map(([value, title]) => html`<button key=${value} type="button" class="small" disabled=${review.busy} aria-pressed=${reviewOf(one) === value}
          onClick=${() => review.run(one, reviewOf(one) === value ? null : value)}>${title}</button>`)}</span></td>
        ${found.columns.map((name) => html`<td key=${name} class=${one.reasons.slice(0, CHIPS).some(({ column }) => column === name) ? "odd" : ""}>${cell(one.cells[name])}</td>`)}</tr>
        ${one === opened && html`<tr key="explained"><td colspan=${4 + found.columns.length}><${Explained} key=${row} one=${one} address=${address} /></td></tr>`}`}<//></tbody></table></div>
    <${More} of=${more} total=${kept} what="rows" /></section>`;
}

const REVIEWS = [["confirmed", "Confirmed"], ["not_unusual", "Not unusual"]];

/** Return what a threshold flags, in words. */
function flagged({ rows, per_month: monthly }, total) {
  const often = monthly === null || monthly === undefined ? "" : monthly < 1 ? " (fewer than one a month)" : ` (about ${number(Math.round(monthly))} a month)`;
  return `flags ${number(rows)} of ${plural(total, "row")}${often}`;
}

/** Return a reason as `Total ($) 11,205: usual here 900 to 1,400`. */
const inWords = (reason) => `${reason.column} ${shown(reason.value, exact)}: ${usualOf(reason) ? `usual here ${usualOf(reason)}` : "does not fit the other values"}`;

const shown = (value, format = number) => (typeof value === "number" ? format(value) : value === null || value === "" ? "missing" : String(value));

/** Return what is usual in place of a value; undefined if nothing is known. */
function usualOf({ usual, levels }) {
  if (usual) return usual.low === usual.high ? shown(usual.low) : `${shown(usual.low)} to ${shown(usual.high)}`;
  return levels?.length ? levels.map((level) => shown(level)).join(" or ") : undefined;
}

/** Return how many times likelier something so many nats higher is. */
const times = (gain) => (gain > Math.log(1e6) ? "more than a million times" : gain < Math.log(1.95) ? "less than two times" : `${number(Number(Math.exp(gain).toPrecision(2)))} times`);

/** A row with each value that does not fit the others, and what is usual in its place. */
function Explained({ one, address }) {
  const box = useRef(null);
  useEffect(() => box.current.scrollIntoView({ block: "nearest" }), []);
  return html`<section class="within" ref=${box} aria-label="Explanation"><div class="head"><h3>Why row ${one.row + 1} is unlikely</h3>
      <p class="row"><${CopyButton} text=${`${origin}/${address}/${one.row + 1}`} label="Copy the link" /><a class="button" href=${address}>Close</a></p></div>
    ${one.reasons.length ? html`<table><thead><tr><th scope="col">Column</th><th scope="col">Value</th><th scope="col">Usual here, given the other values</th><th scope="col">With the likeliest value here, the row would be</th></tr></thead>
      <tbody>${one.reasons.map((reason) => html`<tr key=${reason.column}><td>${reason.column}</td><td class="odd">${shown(reason.value, exact)}</td><td>${usualOf(reason) ?? "other values"}</td>
        <td>${reason.difference === null ? "not computed for a model of this size" : `${times(-reason.difference)} as likely`}</td></tr>`)}</tbody></table>`
    : html`<p>No value alone makes it unlikely: many are a little so.</p>`}
    <p class="hint">Log density of the row: ${nats(one.log_prob)} nats.</p></section>`;
}
