// New rows of a model: how many, the seed, the given values of a conditional model.
import { html, useState } from "../vendor/vendor.js";
import { request as send } from "./api.js";
import { SampleTable } from "./bulk.js";
import { Histogram, Levels } from "./charts.js";
import { cell, plural } from "./format.js";
import { quoted, save } from "./rows.js";
import { columnsOf, isScale, levelsOf, sampledCells, sampledNumbers } from "./table.js";
import { DataTable, Elsewhere, Field, More, origin, Parts, ProblemNote, useAction, useMore } from "./widgets.js";

/** Return a typed value as JSON has it: a number where it is one. */
const valueOf = (text) => (text.trim() === "" ? null : Number.isFinite(Number(text)) ? Number(text) : text);

export function Sample({ version, reference }) {
  const given = version.context_columns ?? [];
  const [values, setValues] = useState({ n: "1000", seed: "", ...Object.fromEntries(given.map((name) => [name, ""])) });
  const [drawn, setDrawn] = useState(null);
  const change = (name) => (event) => setValues({ ...values, [name]: event.target.value });
  const request = { n: Number(values.n), ...(values.seed !== "" && { seed: Number(values.seed) }), ...(given.length && { context: [given.map((name) => valueOf(values[name]))] }) };
  const draw = useAction(async () => {
    const json = { ...request, seed: request.seed ?? Math.floor(Math.random() * 2 ** 32) };
    const [table, numbers] = await Promise.all([sampledCells(version, json), sampledNumbers(version, json)]);
    setDrawn({ json, table, numbers });
  });
  const download = useAction(async () => {
    const response = await send(`/v1/models/${reference}/sample`, { method: "POST", json: drawn.json, headers: { Accept: "text/csv" } });
    save(`${version.name}-samples.csv`, await response.blob());
  });
  const context = Object.fromEntries(given.map((name) => [name, valueOf(values[name])]));
  const columns = columnsOf(version);
  const more = useMore(24);
  return html`<form class="card" onSubmit=${(event) => { event.preventDefault(); draw.run(); }}>
      <div class="fields"><${Field} id="n" label="Rows" hint="At most 10,000 here; a job draws more.">
        <input id="n" type="number" min="1" max="10000" required value=${values.n} onInput=${change("n")} aria-describedby="n-hint" /><//>
        <${Field} id="seed" label="Seed" hint="The same seed gives the same rows. Empty: chosen.">
          <input id="seed" type="number" min="0" step="1" value=${values.seed} onInput=${change("seed")} aria-describedby="seed-hint" /><//>
        ${given.map((name) => html`<${Field} key=${name} id=${`given-${name}`} label=${`Given ${name}`}>
          <input id=${`given-${name}`} type="text" value=${values[name]} onInput=${change(name)} /><//>`)}</div>
      <button class="first" disabled=${draw.busy}>${draw.busy ? "Drawing…" : "Draw rows"}</button><${ProblemNote} problem=${draw.problem} /></form>
    ${drawn && html`<section class="card"><p class="row">
      <button type="button" disabled=${download.busy} onClick=${download.run}>Download as CSV</button>
      <span class="soft">seed ${drawn.json.seed}</span></p><${ProblemNote} problem=${download.problem} />
        <p class="hidden-text" role="status">${plural(drawn.table.rows.length, "row")} drawn</p>
        <${DataTable} caption=${`${plural(drawn.table.rows.length, "row")} that the model drew`} columns=${drawn.table.columns} rows=${drawn.table.rows.map((row) => row.map(cell))} first=${50} /></section>
      <div class="grid"><${Parts} of=${columns.slice(0, more.shown)} size=${4}>${(column) => html`<section class="card" key=${column.name}>
        <h2 class="small">${column.name}</h2><div class="plot"><${Drawn} column=${column} numbers=${drawn.numbers} /></div></section>`}<//></div>
          <${More} of=${more} total=${columns.length} what="columns" />`}
    ${given.length === 0 && html`<${SampleTable} reference=${reference} />`}
    <${Elsewhere} curl=${`curl -s ${origin}/v1/models/${reference}/sample -H 'Content-Type: application/json' \\\n  -d '${JSON.stringify(request)}'`}
      python=${`from densityd.client import Client\n\nwith Client("${origin}") as client:\n    rows = client.sample_table("${reference}", ${request.n}${values.seed !== "" ? `, seed=${request.seed}` : ""}${given.length ? `, context=${JSON.stringify(context).replaceAll(":null", ":None")}` : ""}).to_pandas()`}
      shell=${[`densityd sample ${reference} -n ${request.n}`, ...(values.seed !== "" ? [`--seed ${request.seed}`] : []), ...given.map((name) => `--context ${quoted(`${name}=${values[name]}`)}`)].join(" ")} />`;
}

/** How the drawn values of a column are distributed. */
function Drawn({ column, numbers }) {
  if (isScale(column)) return html`<${Histogram} name=${column.name} model=${numbers.of(column.name)} dates=${column.type === "datetime"} />`;
  const shares = numbers.shares(column.name);
  return html`<${Levels} name=${column.name} levels=${levelsOf(column).map((name) => ({ name, model: shares.get(name) ?? 0 }))} />`;
}
