// Whether a model fits its data: columns one by one, in pairs, quantiles, and what was learnt.
import { html, useEffect, useMemo, useState } from "../vendor/vendor.js";
import { call, request } from "./api.js";
import { Histogram, Levels, Quantiles, Scatter } from "./charts.js";
import { someRows } from "./dataset.js";
import { isScale, numberOf } from "./rows.js";
import { Loaded, ProblemNote, useLoaded } from "./widgets.js";

const COUNT = 2000;

/** Return the columns of a version with their types; plain numbers where it has none. */
export const columnsOf = (version) => version.columns.map((name, at) => version.types?.[at] ?? { name, type: "number", levels: [] });

async function numbersOf(version, reference, signal) {
  const conditional = (version.context_columns ?? []).length > 0;
  const drawn = conditional ? null : await call(`/v1/models/${reference}/sample`, { method: "POST", json: { n: COUNT, seed: 1 }, signal });
  let data = null;
  if (version.lineage.dataset_id) {
    try {
      const dataset = await call(`/v1/datasets/${version.lineage.dataset_id}`, { signal });
      const found = await someRows(dataset.id, dataset.rows, COUNT, signal);
      const order = version.columns.map((name) => found.columns.indexOf(name));
      data = found.rows.map((row) => order.map((at) => row[at]));
    } catch (problem) {
      if (problem.status !== 404) throw problem; // the data set was deleted
    }
  }
  return { data, drawn: drawn?.rows ?? null };
}

export function Fit({ version, reference }) {
  const loaded = useLoaded((signal) => numbersOf(version, reference, signal), [reference]);
  const columns = columnsOf(version);
  return html`<${Loaded} of=${loaded}>${({ data, drawn }) => html`
      <p class="legend"><span class="key of-data">${data ? "data" : "data: deleted, or there was none"}</span><span class="key of-model">${drawn ? `${COUNT} samples of the model` : "samples: a conditional model draws them on its own tab"}</span></p>
      <div class="grid">${columns.slice(0, 60).map((column, at) => html`<section class="card" key=${column.name} aria-label=${`Column ${column.name}`}><h2 class="small">${column.name}</h2>
        <div class="plot"><${OneColumn} column=${column} data=${data?.map((row) => row[at])} drawn=${drawn?.map((row) => row[at])} /></div></section>`)}</div>
      ${columns.length > 60 && html`<p class="soft">The first 60 of ${columns.length} columns are shown.</p>`}
      <${Pairs} columns=${columns} data=${data} drawn=${drawn} />`}<//>
    <${Pictures} version=${version} />`;
}

function OneColumn({ column, data, drawn }) {
  if (isScale(column)) {
    const numbers = (cells) => cells?.map((value) => numberOf(value, column));
    const gaps = (cells) => cells && cells.filter((value) => value === null).length / cells.length;
    return html`<${Histogram} name=${column.name} data=${numbers(data)} model=${numbers(drawn)} dates=${column.type === "datetime"} />
      ${column.missing && data && html`<p class="hint">Gaps: data ${(100 * gaps(data)).toFixed(1)} %${drawn ? `, samples ${(100 * gaps(drawn)).toFixed(1)} %` : ""}</p>`}
      ${data && drawn && html`<details><summary>Quantiles</summary><${Quantiles} name=${column.name} data=${numbers(data)} model=${numbers(drawn)} /></details>`}`;
  }
  const share = (cells, level) => cells && cells.filter((value) => String(value) === String(level)).length / cells.length;
  const gap = (cells) => cells && cells.filter((value) => value === null).length / cells.length;
  const levels = column.levels.map((level) => ({ name: String(level), data: share(data, level), model: share(drawn, level) }));
  if (column.missing) levels.push({ name: "(gap)", data: gap(data), model: gap(drawn) });
  return html`<${Levels} name=${column.name} levels=${levels} />`;
}

function Pairs({ columns, data, drawn }) {
  const scales = columns.map((column, at) => ({ ...column, at })).filter(isScale);
  const [x, setX] = useState(0);
  const [y, setY] = useState(1);
  const [show, setShow] = useState("both");
  const points = useMemo(() => {
    const of = (rows) => (rows ?? []).map((row) => [numberOf(row[scales[x]?.at], scales[x] ?? {}), numberOf(row[scales[y]?.at], scales[y] ?? {})]).filter(([a, b]) => Number.isFinite(a) && Number.isFinite(b));
    return scales.length > 1 ? { data: of(data), model: of(drawn) } : null;
  }, [x, y, data, drawn]);
  if (!points) return null;
  const choice = (id, label, value, set) => html`<label for=${id}>${label}</label><select id=${id} value=${value} onChange=${(event) => set(Number(event.target.value))}>${scales.map((column, at) => html`<option key=${at} value=${at}>${column.name}</option>`)}</select>`;
  return html`<section class="card"><h2>Two columns together</h2><p class="row">${choice("pair-x", "Across", x, setX)}${choice("pair-y", "Up", y, setY)}
      <label for="pair-show">Show</label><select id="pair-show" value=${show} onChange=${(event) => setShow(event.target.value)}><option value="both">data and samples</option><option value="data">data</option><option value="model">samples</option></select></p>
    <${Scatter} xName=${scales[x].name} yName=${scales[y].name} data=${points.data} model=${points.model} show=${show} /></section>`;
}

const KINDS = [["learning-curve", "Learning curve"], ["noise", "Data mapped to noise, against the normal distribution"], ["density", "Density of two columns"], ["images", "Samples as images"]];

function Pictures({ version }) {
  const square = version.dim >= 16 && Number.isInteger(Math.sqrt(version.dim));
  const possible = KINDS.filter(([kind]) => (kind !== "density" || (version.dim === 2 && version.family !== "mixed")) && (kind !== "noise" || version.family !== "mixed") && (kind !== "images" || square));
  return html`<section class="card"><h2>More plots</h2>${possible.map(([kind, title]) => html`<${Picture} key=${kind} version=${version} kind=${kind} title=${title} />`)}</section>`;
}

function Picture({ version, kind, title }) {
  const [seen, setSeen] = useState(false);
  const [url, setUrl] = useState(null);
  const [problem, setProblem] = useState(null);
  useEffect(() => {
    if (!seen) return undefined;
    let made = null;
    request(`/v1/models/${version.name}/versions/${version.version}/plots/${kind}?format=png`).then(async (response) => {
      made = URL.createObjectURL(await response.blob());
      setUrl(made);
    }, setProblem);
    return () => made && URL.revokeObjectURL(made);
  }, [seen]);
  return html`<details onToggle=${(event) => event.target.open && setSeen(true)}><summary>${title}</summary>
    ${url ? html`<img class="picture" src=${url} alt=${title} />` : problem ? html`<${ProblemNote} problem=${problem} />` : html`<p class="loading pulse" role="status">Drawing…</p>`}</details>`;
}
