// Whether a model fits its data: columns one by one, in pairs, quantiles, and what was learnt.
import { html, useEffect, useMemo, useState } from "../vendor/vendor.js";
import { call, request } from "./api.js";
import { Histogram, Levels, Quantiles } from "./charts.js";
import { percent } from "./format.js";
import { Scatter } from "./plane.js";
import { isScale, rowsOf, samplesOf } from "./table.js";
import { InWords, Loaded, More, ProblemNote, useLoaded, useMore } from "./widgets.js";

const COUNT = 2000;

/** Return the columns of a version with their types; plain numbers where it has none. */
export const columnsOf = (version) => version.columns.map((name, at) => version.types?.[at] ?? { name, type: "number", levels: [] });

/** Return rows of the data set and samples of the model; null for what there is none of. */
async function fitOf(version, reference, signal) {
  const data = await dataOf(version, signal);
  const given = version.context_columns ?? [];
  if (!given.length) return { data, drawn: await samplesOf(version, reference, { n: COUNT, seed: 1 }, signal) };
  if (!data) return { data, drawn: null };
  const places = given.map((name) => data.columns.indexOf(name));
  const context = data.rows.map((row) => places.map((at) => row[at]));
  return { data, drawn: await samplesOf(version, reference, { n: context.length, seed: 1, context }, signal) };
}

async function dataOf(version, signal) {
  if (!version.lineage.dataset_id) return null;
  try {
    return await rowsOf(await call(`/v1/datasets/${version.lineage.dataset_id}`, { signal }), COUNT, signal);
  } catch (problem) {
    if (problem.status === 404) return null; // the data set was deleted
    throw problem;
  }
}

export function Fit({ version, reference }) {
  const loaded = useLoaded((signal) => fitOf(version, reference, signal), [reference]);
  const more = useMore(60);
  const columns = columnsOf(version);
  return html`<${InWords} of=${version.metrics?.summary} />
    <${Loaded} of=${loaded}>${({ data, drawn }) => html`
      <p class="legend"><span class="key of-data">${data ? "data" : "data: deleted, or there was none"}</span>
        <span class="key of-model">${drawn ? `${drawn.rows.length} samples of the model` : "samples: they need values of the given columns, which were deleted with the data"}</span></p>
      <div class="grid">${columns.slice(0, more.shown).map((column) => html`<section class="card" key=${column.name} aria-label=${`Column ${column.name}`}>
        <h2 class="small">${column.name}</h2>
        <div class="plot"><${OneColumn} column=${column} data=${data} drawn=${drawn} /></div></section>`)}</div>
      <${More} of=${more} total=${columns.length} what="columns" />
      <${Pairs} columns=${columns} data=${data} drawn=${drawn} />`}<//>
    <${Pictures} version=${version} />`;
}

const shareOf = (cells, found) => cells && cells.filter(found).length / cells.length;

function OneColumn({ column, data, drawn }) {
  const cells = { data: data?.cells(column.name), drawn: drawn?.cells(column.name) };
  const share = (found) => ({ data: shareOf(cells.data, found), model: shareOf(cells.drawn, found) });
  const gaps = share((value) => value === null);
  if (!isScale(column)) {
    const levels = column.levels.map((level) => ({ name: String(level), ...share((value) => String(value) === String(level)) }));
    if (column.missing) levels.push({ name: "(gap)", ...gaps });
    return html`<${Levels} name=${column.name} levels=${levels} />`;
  }
  const numbers = { data: data?.numbers(column.name), model: drawn?.numbers(column.name) };
  const dates = column.type === "datetime";
  return html`<${Histogram} name=${column.name} ...${numbers} dates=${dates} />
    ${column.missing && data && html`<p class="hint">Gaps: data ${percent(gaps.data)}${drawn ? `, samples ${percent(gaps.model)}` : ""}</p>`}
    ${data && drawn && html`<details><summary>Quantiles</summary><${Quantiles} name=${column.name} ...${numbers} dates=${dates} /></details>`}`;
}

function Pairs({ columns, data, drawn }) {
  const scales = columns.filter(isScale);
  const [places, setPlaces] = useState({ x: 0, y: 1 });
  const [show, setShow] = useState("both");
  const [x, y] = [scales[places.x], scales[places.y]];
  const points = useMemo(() => {
    const of = (table) => (table ? pointsOf(table.numbers(x.name), table.numbers(y.name)) : []);
    return scales.length > 1 ? { data: of(data), model: of(drawn) } : null;
  }, [places, data, drawn]);
  if (!points) return null;
  const choice = (axis, label) => html`<label for=${`pair-${axis}`}>${label}</label>
    <select id=${`pair-${axis}`} value=${places[axis]} onChange=${(event) => setPlaces({ ...places, [axis]: Number(event.target.value) })}>${scales.map((column, at) => html`<option key=${at} value=${at}>${column.name}</option>`)}</select>`;
  return html`<section class="card"><h2>Two columns together</h2><p class="row">${choice("x", "Across")}${choice("y", "Up")}
      <label for="pair-show">Show</label><select id="pair-show" value=${show} onChange=${(event) => setShow(event.target.value)}>
        <option value="both">data and samples</option><option value="data">data</option><option value="model">samples</option></select></p>
    <${Scatter} x=${x} y=${y} data=${points.data} model=${points.model} show=${show} /></section>`;
}

/** Return pairs of numbers, without those of which one is missing. */
const pointsOf = (xs, ys) => Array.from(xs, (x, at) => [x, ys[at]]).filter(([x, y]) => Number.isFinite(x) && Number.isFinite(y));

const KINDS = [["learning-curve", "Learning curve"], ["pairs", "Pairs of columns, data and samples side by side"], ["noise", "Data mapped to noise, against the normal distribution"], ["density", "Density in the plane, beside the data or the target"], ["images", "Samples as images"]];

function Pictures({ version }) {
  const square = version.dim >= 16 && Number.isInteger(Math.sqrt(version.dim));
  const possible = KINDS.filter(([kind]) => (kind !== "density" || (version.dim === 2 && version.family !== "mixed")) && (kind !== "noise" || (version.lineage.dataset_id && version.family !== "mixed")) && (kind !== "images" || square));
  return html`<section class="card">
    <h2>More plots</h2>${possible.map(([kind, title]) => html`<${Picture} key=${kind} version=${version} kind=${kind} title=${title} />`)}</section>`;
}

function Picture({ version, kind, title }) {
  const [seen, setSeen] = useState(false);
  const [url, setUrl] = useState(null);
  const [problem, setProblem] = useState(null);
  useEffect(() => {
    if (!seen) return undefined;
    let made = null;
    request(`/v1/models/${version.name}/versions/${version.version}/plots/${kind}?theme=${document.documentElement.dataset.theme}`).then(async (response) => {
      made = URL.createObjectURL(await response.blob());
      setUrl(made);
    }, setProblem);
    return () => made && URL.revokeObjectURL(made);
  }, [seen]);
  return html`<details onToggle=${(event) => event.target.open && setSeen(true)}><summary>${title}</summary>
    ${url ? html`<img class="picture" src=${url} alt=${title} />` : problem ? html`<${ProblemNote} problem=${problem} />` : html`<p class="loading pulse" role="status">Drawing…</p>`}</details>`;
}
