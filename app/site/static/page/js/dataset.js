// One dataset: what its columns are and why, how they are distributed, warnings in words.
import { html, useState } from "../vendor/vendor.js";
import { call } from "./api.js";
import { Histogram, Levels } from "./charts.js";
import { ago, bytes, cell, days, number, percent, plural } from "./format.js";
import { ScoreTable } from "./bulk.js";
import { Labels } from "./labels.js";
import { isScale, levelsOf, numbersOf } from "./table.js";
import { Confirm, Crumbs, DataTable, Elsewhere, Loaded, More, origin, Parts, ProblemNote, useAction, useFocusOn, useLoaded, useMore } from "./widgets.js";

const CHOICES = ["number", "integer", "boolean", "category", "datetime", "ignored"];

export function Dataset({ id }) {
  const loaded = useLoaded(async (signal) => {
    const dataset = await call(`/v1/datasets/${id}`, { signal });
    const [cells, numbers] = await Promise.all([call(`/v1/datasets/${id}/rows?limit=200`, { signal }), numbersOf(dataset, 2000, signal)]);
    return { dataset, cells, numbers };
  }, [id]);
  const more = useMore(60);
  const remove = useAction(async () => {
    await call(`/v1/datasets/${id}`, { method: "DELETE" });
    window.location.hash = "#/datasets";
  });
  const retype = useAction(async (name, type) => {
    await call(`/v1/datasets/${id}`, { method: "PATCH", json: { types: { [name]: type } } });
    loaded.again();
  });
  return html`<${Crumbs} path=${[["Data", "#/datasets"]]} /><${Loaded} of=${loaded} title="Dataset">${({ dataset, cells, numbers }) => html`
    <div class="head"><div><h1>${dataset.name ?? dataset.id}</h1>
        <p class="soft">${plural(dataset.rows, "row")}, ${plural(dataset.column_count, "column")}, ${bytes(dataset.bytes)}, sent ${ago(dataset.created_at)}</p></div>
      <p class="row"><a class="button first" href=${`#/datasets/${id}/train`}>Train a model</a>
        <${Confirm} label="Delete" question="Delete this dataset? Models that were trained on it stay." busy=${remove.busy} act=${remove.run} /></p></div>
    <${ProblemNote} problem=${remove.problem} /><${ProblemNote} problem=${retype.problem} />
    <${Labels} path=${`/v1/datasets/${id}`} of=${dataset} again=${loaded.again} />
    <${Warnings} warnings=${dataset.warnings} />
    <h2>Columns</h2>
    <div class="grid"><${Parts} of=${dataset.columns.slice(0, more.shown)} size=${4}>${(column) => html`<${Column} key=${column.name} column=${column} rows=${dataset.rows} numbers=${numbers} retype=${retype} />`}<//></div>
    <${More} of=${more} total=${dataset.columns.length} what="columns" />
    <section class="card"><${DataTable} caption="Its first rows" columns=${cells.columns} rows=${cells.rows.map((row) => row.map(cell))} first=${20} /></section>
    <${ScoreTable} dataset=${id} />
    <${Elsewhere} curl=${`curl -s ${origin}/v1/datasets/${id}\ncurl -s "${origin}/v1/datasets/${id}/rows?limit=5"`}
      python=${`from densityd.client import Client\n\nwith Client("${origin}") as client:\n    print(client.datasets.get("${id}"))`}
      shell=${`densityd show ${id}`} />`}<//>`;
}

function Warnings({ warnings }) {
  if (!warnings.length) return null;
  return html`<div class="note warn"><strong>${plural(warnings.length, "thing")} to know about this table</strong>
    <ul>${warnings.slice(0, 12).map((warning, at) => html`<li key=${at}>${warning.column && html`<strong>${warning.column}: </strong>`}${warning.detail}</li>`)}</ul>
    ${warnings.length > 12 && html`<details><summary>Show all</summary>
      <ul>${warnings.slice(12).map((warning, at) => html`<li key=${at}>${warning.column && html`<strong>${warning.column}: </strong>`}${warning.detail}</li>`)}</ul></details>`}
  </div>`;
}

function Column({ column, rows, numbers, retype }) {
  const [changing, setChanging] = useState(false);
  const focused = useFocusOn(changing);
  const name = `type-${column.name}`;
  const send = (event) => {
    event.preventDefault();
    setChanging(false);
    retype.run(column.name, new FormData(event.target).get("type"));
  };
  return html`<section class="card" aria-label=${`Column ${column.name}`}>
    <h3>${column.name}</h3>
    <p class="hint">
      <strong>${column.type}</strong>. ${column.reason ?? ""} ${column.missing_count > 0 && html`<br />${percent(column.missing_count / rows)} of its cells are missing.`}</p>
    <div class="plot">${column.levels.length
      ? html`<${Levels} name=${column.name} levels=${levelsOf(column).map((name, index) => ({ name, data: (column.level_counts[index] ?? 0) / rows }))} />`
      : isScale(column) && html`<${Histogram} name=${column.name} dates=${column.type === "datetime"} data=${numbers.of(column.name)} />`}</div>
    ${isScale(column) && column.min !== null && html`<p class="hint">${column.type === "datetime" ? `${days(column.min, column.max)}` : `${number(column.min)} to ${number(column.max)}, mean ${number(column.mean)}`}</p>`}
    ${column.spikes.length > 0 && html`<p class="hint">Often exactly ${column.spikes.slice(0, 3).map(number).join(", ")}.</p>`}
    ${changing
      ? html`<form class="row" onSubmit=${send}><label for=${name} class="hidden-text">Type of ${column.name}</label>
          <select id=${name} name="type" ref=${focused}>
            ${CHOICES.map((type) => html`<option key=${type} selected=${type === column.type}>${type}</option>`)}</select>
          <button>Change</button> <button type="button" class="quiet" onClick=${() => setChanging(false)}>Keep ${column.type}</button></form>`
      : html`<button type="button" class="quiet" ref=${focused} aria-label=${`Change the type of ${column.name}`} onClick=${() => setChanging(true)}>Change the type</button>`}
  </section>`;
}
