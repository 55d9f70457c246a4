// One dataset: its columns in a table with details on click, warnings with what mends them, its first rows.
import { html, useState } from "../vendor/vendor.js";
import { call } from "./api.js";
import { Histogram, Levels } from "./charts.js";
import { missingOf, rangeOf, Sparkline, Warnings } from "./columns.js";
import { ago, bytes, cell, number, percent, plural } from "./format.js";
import { ScoreTable } from "./bulk.js";
import { Labels } from "./labels.js";
import { TYPES } from "./preview.js";
import { isScale, levelsOf, numbersOf } from "./table.js";
import { Confirm, Crumbs, DataTable, Elsewhere, Loaded, More, origin, Parts, ProblemNote, useAction, useFocusOn, useLoaded, useMore } from "./widgets.js";

/** Return the types that a remedy gives to columns that are stored; null of one that needs another upload. */
function typesOf({ option, value }) {
  if (option === "types") return value;
  return option === "exclude" && value ? Object.fromEntries(value.map((name) => [name, "ignored"])) : null;
}

export function Dataset({ id }) {
  const loaded = useLoaded(async (signal) => {
    const dataset = await call(`/v1/datasets/${id}`, { signal });
    const [cells, numbers] = await Promise.all([call(`/v1/datasets/${id}/rows?limit=200`, { signal }), numbersOf(dataset, 2000, signal)]);
    return { dataset, cells, numbers };
  }, [id]);
  const remove = useAction(async () => {
    await call(`/v1/datasets/${id}`, { method: "DELETE" });
    window.location.hash = "#/datasets";
  });
  const retype = useAction(async (types) => {
    await call(`/v1/datasets/${id}`, { method: "PATCH", json: { types } });
    loaded.again();
  });
  return html`<${Crumbs} path=${[["Datasets", "#/datasets"]]} /><${Loaded} of=${loaded} title="Dataset">${({ dataset, cells, numbers }) => html`
    <div class="head"><div><h1>${dataset.name ?? dataset.id}</h1>
        <p class="soft">${plural(dataset.rows, "row")}, ${plural(dataset.column_count, "column")}, ${bytes(dataset.bytes)}, uploaded ${ago(dataset.created_at)}${told(dataset.options)}</p></div>
      <p class="row"><a class="button first" href=${`#/datasets/${id}/train`}>Train a model</a>
        <${Confirm} label="Delete" question="Delete this dataset? Models that were trained on it stay." busy=${remove.busy} act=${remove.run} /></p></div>
    <${ProblemNote} problem=${remove.problem} /><${ProblemNote} problem=${retype.problem} />
    <${Columns} dataset=${dataset} numbers=${numbers} retype=${retype} />
    <${Warnings} warnings=${dataset.warnings} can=${(remedy) => typesOf(remedy) !== null} apply=${(remedy) => retype.run(typesOf(remedy))} busy=${retype.busy} />
    <${Labels} path=${`/v1/datasets/${id}`} of=${dataset} again=${loaded.again} />
    <section class="card"><${DataTable} caption="Its first rows" columns=${cells.columns} rows=${cells.rows.map((row) => row.map(cell))} first=${20} /></section>
    <${ScoreTable} dataset=${id} />
    <${Elsewhere} curl=${`curl -s ${origin}/v1/datasets/${id}\ncurl -s "${origin}/v1/datasets/${id}/rows?limit=5"`}
      python=${`from densityd.client import Client\n\nwith Client("${origin}") as client:\n    print(client.datasets.get("${id}"))`}
      shell=${`densityd show ${id}`} />`}<//>`;
}

/** Return the options that a table was read with, in words. */
function told(options) {
  const parts = Object.entries(options ?? {}).map(([name, value]) => `${name} ${Array.isArray(value) ? value.join(", ") : typeof value === "object" ? Object.entries(value).map((pair) => pair.join(": ")).join(", ") : value}`);
  return parts.length ? `; read with ${parts.join("; ")}` : "";
}

function Columns({ dataset, numbers, retype }) {
  const more = useMore(100);
  const [open, setOpen] = useState(null);
  const about = (name) => dataset.warnings.filter(({ column }) => column === name);
  return html`<section class="card"><div class="scroll tall" tabindex="0" role="region" aria-label="Columns"><table class="dense">
    <thead><tr><th scope="col">Column</th><th scope="col">Type</th><th scope="col" class="number">Missing</th><th scope="col">Shape</th><th scope="col">Range</th><th scope="col">Warnings</th></tr></thead>
    <tbody><${Parts} of=${dataset.columns.slice(0, more.shown)}>${(column) => html`<${Column} key=${column.name} column=${column} rows=${dataset.rows} numbers=${numbers}
      warnings=${about(column.name)} open=${open === column.name} toggle=${() => setOpen(open === column.name ? null : column.name)} retype=${retype} />`}<//></tbody></table></div>
    <${More} of=${more} total=${dataset.columns.length} what="columns" /></section>`;
}

function Column({ column, rows, numbers, warnings, open, toggle, retype }) {
  const { name, type } = column;
  return html`<tr class=${open ? "marked" : type === "ignored" ? "soft" : ""}>
      <th scope="row"><button type="button" class="quiet" aria-expanded=${open} onClick=${toggle}>${name}</button></th>
      <td>${type === "ignored" ? "left out" : type}</td><td class="number">${missingOf(column, rows)}</td>
      <td><${Sparkline} column=${column} numbers=${numbers.of(name)} rows=${rows} /></td><td class="clip">${rangeOf(column)}</td>
      <td>${warnings.map(({ code }) => html`<span key=${code} class="tag warn">${code.replaceAll("_", " ")}</span>`)}</td></tr>
    ${open && html`<tr><td colspan="6"><${Details} column=${column} rows=${rows} numbers=${numbers} warnings=${warnings} retype=${retype} /></td></tr>`}`;
}

function Details({ column, rows, numbers, warnings, retype }) {
  const name = `type-${column.name}`;
  const focused = useFocusOn(retype.busy);
  const scale = isScale(column) && column.min !== null;
  return html`<section class="details" aria-label=${`Column ${column.name}`}>
    <div><p>${column.reason ?? ""} ${column.missing_count > 0 && `${percent(column.missing_count / rows)} of its cells are missing.`}
        ${column.merged && " Values that differ in case or blanks are merged."} ${column.spikes.length > 0 && `Often exactly ${column.spikes.slice(0, 3).map(number).join(", ")}.`}</p>
      ${scale && column.type !== "datetime" && html`<p class="soft">Mean ${number(column.mean)}, standard deviation ${number(column.std)}${column.distinct === null ? "" : `, ${plural(column.distinct, "value")}`}.</p>`}
      ${warnings.map(({ detail }) => html`<p key=${detail}>${detail}</p>`)}
      <p class="row"><label for=${name}>Type of ${column.name}</label>
        <select id=${name} ref=${focused} disabled=${retype.busy} value=${column.type} onChange=${(event) => retype.run({ [column.name]: event.target.value })}>
          ${[...TYPES, "ignored"].map((type) => html`<option key=${type} value=${type}>${type === "ignored" ? "left out" : type}</option>`)}</select></p></div>
    <div class="plot">${column.levels.length
      ? html`<${Levels} name=${column.name} levels=${levelsOf(column).map((level, at) => ({ name: level, data: (column.level_counts[at] ?? 0) / rows }))} />`
      : scale && html`<${Histogram} name=${column.name} dates=${column.type === "datetime"} data=${numbers.of(column.name)} />`}</div></section>`;
}
