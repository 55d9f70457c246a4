// Whether a model fits its data: columns one by one, in pairs, quantiles, and what was learnt.
import { html, useEffect, useMemo, useState } from "../vendor/vendor.js";
import { call, request } from "./api.js";
import { Histogram, Levels, Quantiles } from "./charts.js";
import { number, percent } from "./format.js";
import { Scatter } from "./plane.js";
import { cellsOf, columnsOf, isScale, levelsOf, numbersOf, sampledNumbers } from "./table.js";
import { InWords, Loaded, More, Parts, ProblemNote, useLoaded, useMore } from "./widgets.js";

const COUNT = 2000;
const SEED = 1;

/** Return numbers of the dataset and of samples; null for what there is none of. */
async function fitOf(version, signal) {
  const given = version.context_columns ?? [];
  if (given.length === 0) {
    const [data, drawn] = await Promise.all([
      datasetOf(version, signal).then((dataset) => dataset && numbersOf(dataset, COUNT, signal)),
      sampledNumbers(version, { n: COUNT, seed: SEED }, signal),
    ]);
    return { data, drawn };
  }
  const dataset = await datasetOf(version, signal);
  if (!dataset) return { data: null, drawn: null };
  const [data, drawn] = await Promise.all([numbersOf(dataset, COUNT, signal), sampledLikeData(version, dataset, given, signal)]);
  return { data: version.family === "latent" ? null : data, drawn }; // latent variables are no columns of the data
}

/** Draw a row for the given values of each row of the data. */
async function sampledLikeData(version, dataset, given, signal) {
  const { columns, rows } = await cellsOf(dataset, COUNT, signal);
  const places = given.map((name) => columns.indexOf(name));
  return sampledNumbers(version, { n: rows.length, seed: SEED, context: rows.map((row) => places.map((at) => row[at])) }, signal);
}

/** Return the dataset of a version; null if it was deleted, or there was none. */
async function datasetOf(version, signal) {
  if (!version.lineage.dataset_id) return null;
  try {
    return await call(`/v1/datasets/${version.lineage.dataset_id}`, { signal });
  } catch (problem) {
    if (problem.status === 404) return null;
    throw problem;
  }
}

export function Fit({ version }) {
  const loaded = useLoaded((signal) => fitOf(version, signal), [version.name, version.version]);
  const more = useMore(60);
  const columns = columnsOf(version);
  const square = isSquare(version);
  return html`${!version.verdict && html`<${InWords} of=${version.metrics?.summary} />`}
    ${square && html`<${Pictures} version=${version} />`}
    <${Loaded} of=${loaded}>${({ data, drawn }) => html`
      <${Legend} version=${version} data=${data} drawn=${drawn} />
      <div class="grid"><${Parts} of=${columns.slice(0, more.shown)} size=${4}>${(column) => html`<section class="card" key=${column.name} aria-label=${`Column ${column.name}`}>
        <h2 class="small">${column.name}</h2>
        <div class="plot"><${OneColumn} column=${column} data=${data} drawn=${drawn} /></div></section>`}<//></div>
      <${More} of=${more} total=${columns.length} what="columns" />
      <${Pairs} columns=${columns} data=${data} drawn=${drawn} />`}<//>
    ${!square && html`<${Pictures} version=${version} />`}`;
}

/** What the colours are; a word for what is missing, if there ever was any. */
function Legend({ version, data, drawn }) {
  const deleted = !data && version.lineage.dataset_id;
  if (version.family === "latent") {
    return html`<p class="legend"><span class="key of-model">${number(drawn?.rows ?? 0)} rows of the data, a sample of each row's latent variables</span>
      <span>All together they are a standard Gaussian where the model fits.</span></p>`;
  }
  return html`<p class="legend">
    ${data && html`<span class="key of-data">data</span>`}
    ${drawn && html`<span class="key of-model">${number(drawn.rows)} samples of the model</span>`}
    ${deleted && html`<span>The dataset was deleted.</span>`}
    ${!drawn && html`<span>To draw samples takes values of ${version.context_columns.join(", ")}: see Sample.</span>`}</p>`;
}

function OneColumn({ column, data, drawn }) {
  if (!isScale(column)) {
    const [ofData, ofModel] = [data?.shares(column.name), drawn?.shares(column.name)];
    const share = (text) => ({ data: ofData && (ofData.get(text) ?? 0), model: ofModel && (ofModel.get(text) ?? 0) });
    const levels = levelsOf(column).map((text) => ({ name: text, ...share(text) }));
    if (column.missing) levels.push({ name: "(missing)", ...share(null) });
    return html`<${Levels} name=${column.name} levels=${levels} />`;
  }
  const numbers = { data: data?.of(column.name), model: drawn?.of(column.name) };
  const dates = column.type === "datetime";
  return html`<${Histogram} name=${column.name} ...${numbers} dates=${dates} />
    ${column.missing && data && html`<p class="hint">Missing: data ${percent(gaps(numbers.data))}${drawn ? `, samples ${percent(gaps(numbers.model))}` : ""}</p>`}
    ${data && drawn && html`<details><summary>Quantiles</summary><${Quantiles} name=${column.name} ...${numbers} dates=${dates} /></details>`}`;
}

const gaps = (values) => values.filter(Number.isNaN).length / Math.max(1, values.length);

function Pairs({ columns, data, drawn }) {
  const scales = columns.filter(isScale);
  const [places, setPlaces] = useState({ x: 0, y: 1 });
  const [show, setShow] = useState("both");
  const [x, y] = [scales[places.x], scales[places.y]];
  const points = useMemo(() => {
    const of = (table) => (table ? pointsOf(table.of(x.name), table.of(y.name)) : []);
    return scales.length > 1 && (data || drawn) ? { data: of(data), model: of(drawn) } : null;
  }, [places, data, drawn]);
  if (!points) return null;
  const choice = (axis, label) => html`<label for=${`pair-${axis}`}>${label}</label>
    <select id=${`pair-${axis}`} value=${places[axis]} onChange=${(event) => setPlaces({ ...places, [axis]: Number(event.target.value) })}>${scales.map((column, at) => html`<option key=${at} value=${at}>${column.name}</option>`)}</select>`;
  return html`<section class="card"><h2>Two columns together</h2><p class="row">${choice("x", "Across")}${choice("y", "Up")}
      ${data && drawn && html`<label for="pair-show">Show</label><select id="pair-show" value=${show} onChange=${(event) => setShow(event.target.value)}>
        <option value="both">data and samples</option><option value="data">data</option><option value="model">samples</option></select>`}</p>
    <${Scatter} x=${x} y=${y} data=${points.data} model=${points.model} show=${show} /></section>`;
}

/** Return pairs of numbers, without those of which one is missing. */
const pointsOf = (xs, ys) => Array.from(xs, (x, at) => [x, ys[at]]).filter(([x, y]) => Number.isFinite(x) && Number.isFinite(y));

const KINDS = [["images", "Samples as images"], ["learning-curve", "Learning curve"], ["pairs", "Pairs of columns, data and samples side by side"], ["noise", "Data mapped to noise, against the normal distribution"], ["density", "Density in the plane, beside the data or the target"]];

/** True if the columns can be the pixels of a square image. */
const isSquare = ({ dim }) => dim >= 16 && Number.isInteger(Math.sqrt(dim));

function Pictures({ version }) {
  const possible = KINDS.filter(([kind]) => (version.family !== "latent" || kind === "learning-curve") && (kind !== "density" || (version.dim === 2 && version.family !== "mixed")) && (kind !== "noise" || (version.lineage.dataset_id && version.family !== "mixed")) && (kind !== "images" || isSquare(version)));
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
