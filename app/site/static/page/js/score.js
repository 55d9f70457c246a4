// Rows in, densities out: pasted, typed or from a file; which values make a row unlikely.
import { html, useEffect, useRef, useState } from "../vendor/vendor.js";
import { call } from "./api.js";
import { ScoreTable } from "./bulk.js";
import { Contributions } from "./charts.js";
import { cell, day, nats, number, percent, plural } from "./format.js";
import { csv, exampleRows, parseRows, rowsOf, save, textOf } from "./rows.js";
import { Elsewhere, origin, Parts, ProblemNote, useAction } from "./widgets.js";

const MOST = 10000;
const PIECE = 2000;
const EXPLAINED = 200; // rows up to which all are explained at once; others when they are asked for

/** Score rows in pieces; returns lists over all rows. */
async function scored(version, reference, { columns, rows }, explain, onProgress) {
  const calibrated = Boolean(version.held_out);
  const result = { log_prob: [], quantile: [], explanation: [], errors: new Map(), warnings: [] };
  for (let at = 0; at < rows.length; at += PIECE) {
    const path = calibrated ? `score${explain ? "?explain=true" : ""}` : "log_prob";
    const answer = await call(`/v1/models/${reference}/${path}`, { method: "POST", body: csv(columns, rows.slice(at, at + PIECE)), headers: { "Content-Type": "text/csv", Accept: "application/json" } });
    result.log_prob.push(...answer.log_prob);
    result.quantile.push(...(answer.quantile ?? []));
    result.heldOut = answer.held_out;
    result.explanation.push(...(answer.difference ?? []).map((beside, row) => besideUsual(beside, answer.explanation[row])));
    for (const error of answer.row_errors) result.errors.set(at + error.row, error.detail);
    for (const warning of answer.row_warnings ?? []) result.warnings.push({ ...warning, row: at + warning.row });
    onProgress(Math.min(1, (at + PIECE) / rows.length));
  }
  return result;
}

/** Return how far each value's fit is from the usual one of its column; the fit itself where none is known. */
const besideUsual = (difference, explanation) => Object.fromEntries(Object.entries(difference).map(([name, value]) => [name, value ?? explanation[name]]));

/** Return cells of some rows, filled given the others of their row: texts by the key of the cell. */
async function filledCells(version, reference, { columns, rows }, cleared) {
  const places = [...new Set([...cleared].map((key) => key.split(":")[0]))].map(Number);
  const json = rowsOf(version, columns, places.map((at) => rows[at].map((value, column) => (cleared.has(`${at}:${column}`) ? null : value))));
  const answer = await call(`/v1/models/${reference}/impute?level=0.9`, { method: "POST", json });
  return new Map([...cleared].map((key) => {
    const [at, column] = key.split(":").map(Number);
    const [value, low, high] = ["", "low.", "high."].map((end) => answer.rows[places.indexOf(at)][answer.columns.indexOf(`${end}${columns[column]}`)]);
    const shown = version.types?.find(({ name }) => name === columns[column])?.type === "datetime" ? day : number;
    return [key, `${cell(typeof value === "number" ? number(value) : value)}${typeof low === "number" ? ` (${shown(low)} to ${shown(high)})` : ""}`];
  }));
}

/** Return the log density of the cells of some rows given the others of their row, by row. */
async function givenRest(version, reference, { columns, rows }, cleared) {
  const groups = new Map(); // rows by the columns that are asked for
  for (const at of new Set([...cleared].map((key) => key.split(":")[0]))) {
    const key = columns.map((_, column) => Number(cleared.has(`${at}:${column}`))).join("");
    groups.set(key, [...(groups.get(key) ?? []), Number(at)]);
  }
  const found = new Map();
  for (const [key, places] of groups) {
    const names = columns.filter((name) => version.columns.includes(name));
    const query = new URLSearchParams(names.map((name) => [key[columns.indexOf(name)] === "1" ? "columns" : "given", name]));
    const answer = await call(`/v1/models/${reference}/log_prob?${query}`, { method: "POST", json: rowsOf(version, columns, places.map((at) => rows[at])) });
    places.forEach((at, row) => found.set(at, answer.log_prob[row]));
  }
  return found;
}

const namesOf = (version) => [...version.columns, ...(version.context_columns ?? [])];

export function Score({ version, reference }) {
  const [text, setText] = useState("");
  const [table, setTable] = useState(null);
  const [result, setResult] = useState(null);
  const [progress, setProgress] = useState(0);
  const chooser = useRef(null);
  const explains = Boolean(version.held_out && version.types && version.family === "mixed");
  useEffect(() => {
    const begin = (rows) => setText((typed) => typed || rows);
    exampleRows(version, namesOf(version)).then(begin, () => begin(`${version.columns.join(",")}\n`));
  }, [reference]);
  const explain = (table, onProgress) => scored(version, reference, table, true, onProgress);
  const run = useAction(async () => {
    const parsed = parseRows(text);
    if (parsed.rows.length > MOST) parsed.rows.length = MOST;
    setResult(null);
    setProgress(0);
    let found;
    try {
      found = await (explains && parsed.rows.length <= EXPLAINED ? explain(parsed, setProgress) : scored(version, reference, parsed, false, setProgress));
    } catch (problem) {
      if (!explains || problem.status !== 422 || !problem.type?.includes("explanation")) throw problem;
      found = await scored(version, reference, parsed, false, setProgress);
    }
    setTable(parsed);
    setResult(found);
  });
  // Browsers take seconds to insert a long text line by line.
  const paste = (event) => {
    event.preventDefault();
    const { selectionStart, selectionEnd } = event.target;
    setText(text.slice(0, selectionStart) + event.clipboardData.getData("text/plain") + text.slice(selectionEnd));
  };
  const open = async (file) => file && setText(await textOf(file));
  return html`<section class="card"><form onSubmit=${(event) => { event.preventDefault(); run.run(); }}>
      <label for="rows">Rows, with a line of names</label>
      <p class="hint" id="rows-hint">Paste from a spreadsheet or a CSV file, in any order of columns; an empty cell is missing. ${number(MOST)} rows at most; a job scores larger tables, see below.</p>
      <textarea id="rows" rows="8" onPaste=${paste} spellcheck=${false} aria-describedby="rows-hint" value=${text} onInput=${(event) => setText(event.target.value)}></textarea>
      <p class="row"><button class="first" disabled=${run.busy || !text.trim()}>${run.busy ? "Scoring…" : "Score these rows"}</button>
        <input ref=${chooser} type="file" hidden onChange=${(event) => { open(event.target.files[0]); event.target.value = ""; }} />
        <button type="button" onClick=${() => chooser.current.click()}>Open a file</button></p>
      ${run.busy && html`<progress value=${progress} max="1" aria-label="Scored"></progress>`}
    </form><${ProblemNote} problem=${run.problem} /></section>
    ${result && html`<${Results} key=${result} version=${version} reference=${reference} table=${table} result=${result} explain=${explains && explain} />`}
    <${ScoreTable} reference=${reference} />
    <${Elsewhere} curl=${`curl -s ${origin}/v1/models/${reference}/${version.held_out ? "score" : "log_prob"} -H 'Content-Type: text/csv' --data-binary @rows.csv`}
      python=${`import pandas as pd\nfrom densityd.client import Client\n\nrows = pd.read_csv("rows.csv")\nwith Client("${origin}") as client:\n    rows["log_prob"] = client.log_prob("${reference}", rows)`} shell=${`densityd score ${reference} rows.csv`} />`;
}

/** explain: explains the rows of a table; none: the model explains nothing. */
function Results({ version, reference, table, result, explain }) {
  const [sorted, setSorted] = useState(false);
  const [open, setOpen] = useState(null);
  const look = useAction(async (at) => {
    result.explanation[at] ??= (await explain({ columns: table.columns, rows: [table.rows[at]] }, () => {})).explanation[0];
    setOpen(at);
  });
  const [cleared, setCleared] = useState(new Set());
  const [filled, setFilled] = useState(new Map());
  const [given, setGiven] = useState(null);
  const clears = !version.context_columns?.length;
  const clear = (keys) => {
    setCleared(new Set(keys));
    setFilled(new Map());
    setGiven(null);
  };
  const toggle = (key) => clear(cleared.has(key) ? [...cleared].filter((other) => other !== key) : [...cleared, key]);
  const ask = useAction(async (about, set) => set(await about(version, reference, table, cleared)));
  const valueOf = (name) => cell(table.rows[open][table.columns.indexOf(name)]) || "(missing)";
  const [shown, setShown] = useState(100);
  const order = table.rows.map((_, at) => at);
  if (sorted) order.sort((one, other) => (result.log_prob[one] ?? -Infinity) - (result.log_prob[other] ?? -Infinity));
  const calibrated = result.quantile.length > 0;
  const rare = calibrated ? result.quantile.filter((value) => value !== null && value < 0.01).length : 0;
  const names = ["Row", "Log density", ...(calibrated ? ["Rank"] : []), ...(given ? ["Cleared given these"] : [])];
  const download = () => save("scores.csv", new Blob([csv([...table.columns, "log_prob", ...(calibrated ? ["quantile"] : [])], table.rows.map((row, at) => [...row, result.log_prob[at], ...(calibrated ? [result.quantile[at]] : [])]))], { type: "text/csv" }));
  return html`<section class="card" aria-label="Scores"><div role="status"><h2>${plural(table.rows.length, "row")} scored</h2></div>
    <p class="hint">The log density is in nats. ${calibrated ? `The rank is the share of ${plural(result.heldOut.rows, `${result.heldOut.part} row`)} that are at most as likely, the row itself counted: below 1 % is rare.${result.heldOut.part === "validation" ? " These rows chose the epoch, so that ranks may be a little low." : ""} ${plural(rare, "row is", "rows are")} rare here.` : "An imported model has no calibrated ranks."}</p>
    ${result.warnings.length > 0 && html`<div class="note warn"><strong>${plural(result.warnings.length, "value")} unlike those of the training</strong>
      <ul>${result.warnings.slice(0, 5).map(({ row, column, detail }, at) => html`<li key=${at}>Row ${row + 1}, ${column}: ${detail}</li>`)}</ul></div>`}
    <p class="row"><label><input type="checkbox" checked=${sorted} onChange=${() => setSorted(!sorted)} /> Least likely first</label>
      <button type="button" onClick=${download}>Download as CSV</button></p>
    ${clears && html`<p class="row" role="status">${cleared.size === 0 ? html`<span class="hint">A click on a value clears it: what would the model put there, and how likely is the value given the others of its row?</span>` : html`<span>${plural(cleared.size, "value")} cleared</span>
      <button type="button" disabled=${ask.busy} onClick=${() => ask.run(filledCells, setFilled)}>Fill</button>
      <button type="button" disabled=${ask.busy} onClick=${() => ask.run(givenRest, setGiven)}>Likelihood given these</button>
      <button type="button" onClick=${() => clear([])}>Bring back</button>`}</p>`}<${ProblemNote} problem=${ask.problem} />
    <div class="scroll" tabindex="0" role="region" aria-label="Scored rows"><table>
      <thead>
        <tr>${names.map((name) => html`<th key=${name} scope="col" class="number">${name}</th>`)}${explain && html`<th scope="col">Least usual</th>`}${table.columns.map((name) => html`<th key=${name} scope="col">${name}</th>`)}</tr></thead>
      <tbody><${Parts} of=${order.slice(0, shown)}>${(at) => html`<tr key=${at} class=${calibrated && result.quantile[at] !== null && result.quantile[at] < 0.01 ? "marked" : ""}>
        <td class="number">${at + 1}</td>
          <td class="number" title=${result.errors.get(at)}>${result.log_prob[at] === null ? html`<span title=${result.errors.get(at)}>none</span>` : nats(result.log_prob[at])}</td>
        ${calibrated && html`<td class="number">${result.quantile[at] === null ? "–" : percent(result.quantile[at])}</td>`}
        ${given && html`<td class="number">${given.has(at) ? nats(given.get(at)) : ""}</td>`}
        ${explain && html`<td>
          <button type="button" class="quiet" aria-expanded=${open === at} aria-label=${`Explain row ${at + 1}`} disabled=${look.busy} onClick=${() => (open === at ? setOpen(null) : look.run(at))}>${worst(result.explanation[at])}</button></td>`}
        ${table.columns.map((name, column) => html`<td key=${name}>${clears && version.columns.includes(name) ? html`<${Clearable} value=${cell(table.rows[at][column])} cleared=${cleared.has(`${at}:${column}`)} filled=${filled.get(`${at}:${column}`)} toggle=${() => toggle(`${at}:${column}`)} />` : cell(table.rows[at][column])}</td>`)}</tr>`}<//></tbody></table></div>
    ${order.length > shown && html`<p class="row"><button type="button" onClick=${() => setShown(shown + 1000)}>Show more</button>
      <span class="soft">${number(shown)} of ${number(order.length)} rows are shown</span></p>`}
    ${result.errors.size > 0 && html`<p class="hint">${plural(result.errors.size, "row has", "rows have")} no finite density: ${[...result.errors.values()][0]}</p>`}
    <${ProblemNote} problem=${look.problem} />
    ${open !== null && result.explanation[open] && html`<section class="card" aria-label="Explanation">
      <h3>Row ${open + 1}: how well each value fits the others</h3>
      <p class="hint">Log density of the value given the others, beside what is usual for its column, in nats: at -2.3 it is a tenth of the usual, at -6.9 a thousandth. The lowest values make the row unlikely.</p><div class="plot scroll" tabindex="0" role="region" aria-label="Values and how well they fit">
        <${Contributions} parts=${Object.fromEntries(Object.entries(result.explanation[open]).map(([name, value]) => [`${name}: ${valueOf(name)}`, value]))} /></div></section>`}
  </section>`;
}

/** A value that a click clears, or brings back. */
const Clearable = ({ value, cleared, filled, toggle }) => html`<button type="button" class="cell" aria-pressed=${cleared} title=${cleared ? `Cleared: ${value}` : "Clear"} onClick=${toggle}>
  ${cleared ? html`<s>${value || "missing"}</s> ${filled ?? ""}` : value || html`<span class="hidden-text">missing</span>`}</button>`;

function worst(parts) {
  const known = Object.entries(parts ?? {}).filter(([, value]) => value !== null);
  return known.length ? known.reduce((one, other) => (other[1] < one[1] ? other : one))[0] : "explain";
}
