// What if: some columns of a row are set, and the distribution of any other follows.
import { html, useEffect, useState } from "../vendor/vendor.js";
import { call } from "./api.js";
import { ImputeTable } from "./bulk.js";
import { Histogram, Levels } from "./charts.js";
import { day, number, percent } from "./format.js";
import { rowsOf } from "./rows.js";
import { columnsOf, isScale, levelsOf } from "./table.js";
import { Elsewhere, Field, Loaded, origin, useLoaded } from "./widgets.js";

const PAUSE_MS = 300; // after the last key
const SHARES = Array.from({ length: 99 }, (_, at) => (at + 1) / 100);

/** Return a value once it has not changed for a while. */
function useSettled(value) {
  const [settled, setSettled] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => setSettled(value), PAUSE_MS);
    return () => clearTimeout(timer);
  }, [value]);
  return settled;
}

/** Return what a column is, given cells of other columns; cells that are empty are not known. */
async function expected(version, reference, column, names, cells, signal) {
  const given = names.filter((name) => name !== column.name);
  const query = new URLSearchParams([["column", column.name], ...given.map((name) => ["given", name]), ...(isScale(column) ? SHARES.map((share) => ["quantiles", share]) : [])]);
  const json = rowsOf(version, given, [given.map((name) => cells[name])]);
  const answer = await call(`/v1/models/${reference}/expect?${query}`, { method: "POST", json, signal });
  return { quantiles: answer.quantiles && SHARES.map((share) => answer.quantiles[0][share]), mean: answer.mean?.[0], probabilities: answer.probabilities?.[0], uncertain: answer.uncertain[0] > 0 };
}

export function WhatIf({ version, reference }) {
  const columns = columnsOf(version);
  const names = columns.map(({ name }) => name);
  const [target, setTarget] = useState(names.at(-1));
  const [cells, setCells] = useState({});
  const column = columns.find(({ name }) => name === target);
  const known = Object.fromEntries(Object.entries(cells).filter(([name, text]) => name !== target && text.trim() !== ""));
  const asked = useSettled(JSON.stringify(known));
  const usual = useLoaded((signal) => expected(version, reference, column, names, {}, signal), [reference, target]);
  const found = useLoaded((signal) => expected(version, reference, column, names, JSON.parse(asked), signal), [reference, target, asked]);
  const given = Object.keys(known);
  const query = [`column=${encodeURIComponent(target)}`, ...given.map((name) => `given=${encodeURIComponent(name)}`)].join("&");
  return html`<section class="card"><div class="fields">
      <${Field} id="target" label="What would this column be?"><select id="target" value=${target} onChange=${(event) => setTarget(event.target.value)}>
        ${names.map((name) => html`<option key=${name}>${name}</option>`)}</select><//></div>
    <h2 class="small">If these are known</h2><p class="hint">What is left empty is not known.</p>
    <div class="fields">${columns.filter(({ name }) => name !== target).map((one) => html`<${Cell} key=${one.name} column=${one} value=${cells[one.name] ?? ""} set=${(text) => setCells({ ...cells, [one.name]: text })} />`)}</div>
    <p class="row"><button type="button" disabled=${given.length === 0} onClick=${() => setCells({})}>Forget all</button></p></section>
    <section class="card" aria-label=${`Distribution of ${target}`}><${Loaded} of=${found}>${(now) => html`<${Distribution} key=${target} column=${column} now=${now} usual=${usual.value} />`}<//></section>
    <${ImputeTable} reference=${reference} />
    <${Elsewhere} curl=${`curl -s '${origin}/v1/models/${reference}/expect?${query}' -H 'Content-Type: application/json' \\\n  -d '${JSON.stringify({ rows: [known] })}'`}
      python=${`import pandas as pd\nfrom densityd.client import Client\n\nrows = pd.DataFrame(${JSON.stringify([known])})\nwith Client("${origin}") as client:\n    found = client.expect("${reference}", rows, ${JSON.stringify(target)}, given=${JSON.stringify(given)})`} />`;
}

/** Field of a cell: a list of the levels, or text. */
function Cell({ column, value, set }) {
  const id = `known-${column.name}`;
  return html`<${Field} id=${id} label=${column.name}>${column.levels.length
    ? html`<select id=${id} value=${value} onChange=${(event) => set(event.target.value)}><option value="">not known</option>${levelsOf(column).map((level) => html`<option key=${level}>${level}</option>`)}</select>`
    : html`<input id=${id} type="text" value=${value} placeholder="not known" onInput=${(event) => set(event.target.value)} />`}<//>`;
}

/** Distribution of a column given what is known, beside the one of a row of which nothing is. */
function Distribution({ column, now, usual }) {
  const dates = column.type === "datetime";
  const text = (value) => (dates ? day(value).slice(0, column.date_only ? 10 : 16) : number(value));
  const rough = now.uncertain && html`<p class="hint">This is rough: few rows are like this.</p>`;
  if (now.probabilities) {
    const [best, share] = Object.entries(now.probabilities).reduce((one, other) => (other[1] > one[1] ? other : one));
    const levels = Object.entries(now.probabilities).sort((one, other) => other[1] - one[1]).map(([name, model]) => ({ name, model, told: model, data: usual?.probabilities?.[name] ?? 0 }));
    return html`<p role="status"><strong>${best}</strong>, with a probability of ${percent(share)}.</p>${rough}
      <div class="plot one"><${Levels} name=${column.name} levels=${levels} /></div><${Legend} />`;
  }
  const at = (share) => text(now.quantiles[Math.round(100 * share) - 1]);
  return html`<p role="status">About <strong>${at(0.5)}</strong>: between ${at(0.25)} and ${at(0.75)} with a probability of one half, between ${at(0.05)} and ${at(0.95)} with 90 %.</p>${rough}
    <div class="plot one"><${Histogram} name=${column.name} data=${usual?.quantiles ?? []} model=${now.quantiles} dates=${dates} /></div><${Legend} />`;
}

const Legend = () => html`<p class="hint">Grey: if nothing is known. Orange: given what is set.</p>`;
