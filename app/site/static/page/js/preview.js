// A table before it is stored: how it is read, what is odd about it, and the buttons that mend it.
import { html, useEffect, useState } from "../vendor/vendor.js";
import { call } from "./api.js";
import { missingOf, rangeOf, Warnings } from "./columns.js";
import { bytes, number, percent, plural } from "./format.js";
import { nameOf } from "./train.js";
import { Drop, dropped, labelOf, partOf, preview, send } from "./uploading.js";
import { Crumbs, DataTable, Field, More, Parts, ProblemNote, useAction, useMore } from "./widgets.js";

export const TYPES = ["number", "integer", "boolean", "category", "datetime"];
const LEFT_OUT = "left out";
const FIRST = 8; // rows that are shown above the last ones
const DELIMITERS = [[",", "comma"], [";", "semicolon"], ["\t", "tab"], ["|", "bar |"], [" ", "blanks"]];
const ENCODINGS = ["utf-8", "utf-16", "cp1252", "latin-1", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp850", "cp866", "iso8859_2", "koi8_r", "mac_roman", "mac_cyrillic", "shift_jis", "euc_jp", "euc_kr", "gbk", "big5"];
const DECIMALS = [[".", "point: 1.5"], [",", "comma: 1,5"]];
const WORDS = { exclude: "left out", na_values: "missing", drop_rows: "rows left out", merge_levels: "values merged", types: "type", header: "header", delimiter: "separator", encoding: "encoding", sheet: "sheet", decimal: "decimals", datetime_format: "dates", missing: "rows with missing cells" };

const without = (list, values) => (list ?? []).filter((one) => !values.includes(one));
const listOf = (text) => text.split(",").map((word) => word.trim()).filter(Boolean);

/** Return options with a remedy: lists and objects grow, other values change. */
function mended(options, { option, value }) {
  const now = options[option];
  if (Array.isArray(value)) return { ...options, [option]: [...without(now, value), ...value] };
  if (typeof value === "object") return { ...options, exclude: without(options.exclude, Object.keys(value)), [option]: { ...now, ...value } };
  return { ...options, [option]: value };
}

/** Return options with another type of a column; none: as it is found. */
function withType(options, name, type) {
  const { [name]: _, ...types } = options.types ?? {};
  const exclude = without(options.exclude, [name]);
  if (type === LEFT_OUT) return { ...options, types, exclude: [...exclude, name] };
  return { ...options, exclude, types: type ? { ...types, [name]: type } : types };
}

export function NewDataset() {
  const file = dropped.value;
  if (!file) return html`<${Crumbs} path=${[["Datasets", "#/datasets"]]} /><h1>New dataset</h1><${Drop} />`;
  return html`<${Preview} key=${`${file.name} ${file.size} ${file.lastModified}`} file=${file} />`;
}

function Preview({ file }) {
  const [options, setOptions] = useState({});
  const [state, setState] = useState({ busy: true });
  const [sent, setSent] = useState(null);
  const wanted = JSON.stringify(options);
  useEffect(() => {
    const stop = new AbortController();
    setState((before) => ({ ...before, busy: true }));
    partOf(file).then(async (part) => ({ found: await preview(file, part, options, stop.signal), part })).then(
      ({ found, part }) => setState({ busy: false, found, part }),
      (problem) => stop.signal.aborted || setState((before) => ({ ...before, busy: false, problem })),
    );
    return () => stop.abort();
  }, [wanted]);
  const use = useAction(async (trains) => {
    setSent(0);
    const dataset = await send(file, options, setSent);
    if (!trains) { window.location.hash = `#/datasets/${dataset.id}`; return; }
    const job = await call("/v1/jobs/training", { method: "POST", json: { model_name: nameOf(dataset.name), dataset_id: dataset.id, missing: "any" }, headers: { "Idempotency-Key": crypto.randomUUID() } });
    window.location.hash = `#/jobs/${job.id}`;
  });
  const { found, busy, problem, part } = state;
  const apply = (remedy) => {
    if (remedy.value !== null) { setOptions(mended(options, remedy)); return; }
    const field = document.getElementById(`read-${remedy.option}`);
    field?.scrollIntoView({ block: "center" });
    field?.focus();
  };
  const isCut = part && part.size < file.size;
  return html`<${Crumbs} path=${[["Datasets", "#/datasets"]]} />
    <div class="head"><div><h1>${labelOf(file)}</h1>
        <p class="soft" role="status">${bytes(file.size)}${found ? `, ${isCut ? "the first " : ""}${plural(found.rows, "row")}, ${plural(found.columns.length, "column")}` : ""}.
          ${busy ? " Reading…" : isCut ? ` Types follow from the first ${bytes(part.size)} here, and from all rows in the dataset.` : " Nothing is stored yet."}</p></div>
      <p class="row"><button type="button" class="first" disabled=${busy || use.busy || problem} onClick=${() => use.run(true)}>Use this table and train</button>
        <button type="button" disabled=${busy || use.busy || problem} onClick=${() => use.run(false)}>Use this table</button>
        <a href="#/datasets" onClick=${() => { dropped.value = null; }}>Cancel</a></p></div>
    ${use.busy && html`<div class="card"><p role="status">${sent < 1 ? `Uploading, ${percent(sent)}` : "Reading all rows"}</p>
      ${sent < 1 ? html`<progress value=${sent} max="1" aria-label="Uploaded"></progress>` : html`<progress aria-label="Reading"></progress>`}</div>`}
    <${ProblemNote} problem=${use.problem ?? problem} />
    <${Changes} options=${options} set=${setOptions} />
    ${found && html`<${Warnings} warnings=${found.warnings} apply=${apply} busy=${busy} />`}
    <${Reading} found=${found} options=${options} set=${setOptions} />
    ${found ? html`<${Columns} found=${found} options=${options} set=${setOptions} />
      <section class="card"><${DataTable} caption="First and last rows, as read" columns=${found.columns.map(({ name }) => name)}
        rows=${found.last_rows.length ? [...found.first_rows.slice(0, FIRST), found.columns.map(() => "…"), ...found.last_rows] : found.first_rows} first=${30} /></section>` : busy && html`<p class="loading pulse" role="status">Reading…</p>`}`;
}

/** What was changed so far, each with a button that takes it back. */
function Changes({ options, set }) {
  const changes = Object.entries(options).flatMap(([option, value]) => {
    if (value === "" || value === undefined) return [];
    if (Array.isArray(value)) return value.map((one) => [`${WORDS[option]}: ${one}`, { ...options, [option]: without(value, [one]) }]);
    if (typeof value === "object") return Object.entries(value).map(([name, type]) => [`${name}: ${type}`, withType(options, name, "")]);
    return [[`${WORDS[option] ?? option}: ${option === "header" ? (String(value) === "true" ? "first line" : "none") : (DELIMITERS.find(([mark]) => mark === value)?.[1] ?? value)}`, { ...options, [option]: "" }]];
  });
  if (!changes.length) return null;
  return html`<p class="row" role="group" aria-label="Changes"><strong>Changed:</strong> ${changes.map(([text, before]) => html`<span key=${text} class="tag">${text}
    <button type="button" class="quiet" aria-label=${`Take back ${text}`} onClick=${() => set(before)}>×</button></span>`)}</p>`;
}

/** How the file is read: found by itself, or as chosen. */
function Reading({ found, options, set }) {
  const isText = !found || found.format === "csv";
  const inEffect = found?.found ?? {};
  const shared = { options, set };
  const names = [["true", "the first line has the names"], ["false", "none: the first line is a row"]];
  return html`<section class="card" aria-label="How the file is read"><h2>How the file is read</h2><div class="fields narrow">
    ${found?.sheets.length > 0 && html`<${Choice} ...${shared} name="sheet" label="Sheet" choices=${found.sheets.map((sheet) => [sheet, sheet])} force=${inEffect.sheet} />`}
    ${(isText || found.sheets.length > 0) && html`<${Choice} ...${shared} name="header" label="Header line" choices=${names} force=${inEffect.header} />`}
    ${isText && html`<${Choice} ...${shared} name="delimiter" label="Separator" choices=${DELIMITERS} force=${inEffect.delimiter} />
      <${Choice} ...${shared} name="encoding" label="Encoding" choices=${ENCODINGS.map((one) => [one, one])} force=${inEffect.encoding} />`}
    <${Choice} ...${shared} name="decimal" label="Decimals" choices=${DECIMALS} />
    <${Words} ...${shared} name="na_values" label="Words for missing" hint="such as -999, none" />
    <${Words} ...${shared} name="drop_rows" label="Leave out rows with" hint="such as Total" /></div></section>`;
}

function Choice({ options, set, name, label, choices, force }) {
  const stated = String(options[name] ?? "");
  const found = choices.find(([value]) => value === String(force))?.[1];
  return html`<${Field} id=${`read-${name}`} label=${label}>
    <select id=${`read-${name}`} value=${stated} onChange=${(event) => set({ ...options, [name]: event.target.value })}>
      <option value="">${stated ? "as found" : (found ?? "found by column")}</option>
      ${choices.filter(([value]) => stated || value !== String(force)).map(([value, text]) => html`<option key=${value} value=${value}>${text}</option>`)}</select><//>`;
}

const Words = ({ options, set, name, label, hint }) => html`<${Field} id=${`read-${name}`} label=${label}>
  <input id=${`read-${name}`} type="text" placeholder=${hint} value=${(options[name] ?? []).join(", ")} onChange=${(event) => set({ ...options, [name]: listOf(event.target.value) })} /><//>`;

function Columns({ found, options, set }) {
  const more = useMore(100);
  const about = (name) => found.warnings.filter(({ column }) => column === name);
  return html`<section class="card"><h2>Columns</h2><div class="scroll tall" tabindex="0" role="region" aria-label="Columns and types"><table class="dense">
    <thead><tr><th scope="col">Name</th><th scope="col">Type</th><th scope="col" class="number">Missing</th><th scope="col">Range</th><th scope="col">First cells</th><th scope="col">Warnings</th></tr></thead>
    <tbody><${Parts} of=${found.columns.slice(0, more.shown).map((column, at) => [column, at])}>${([column, at]) => html`<tr key=${column.name} class=${column.type === "ignored" ? "soft" : ""}>
      <th scope="row">${column.name}</th>
      <td><${TypeChoice} column=${column} options=${options} set=${set} /></td>
      <td class="number">${missingOf(column, found.rows)}</td><td class="clip" title=${rangeOf(column)}>${rangeOf(column)}</td>
      <td class="clip">${found.first_rows.slice(0, 3).map((row) => row[at] ?? "").filter(Boolean).join(" · ")}</td>
      <td class="clip" title=${about(column.name).map(({ detail }) => detail).join("\n")}>${about(column.name).map(({ code }) => html`<span key=${code} class="tag warn">${code.replaceAll("_", " ")}</span>`)}</td></tr>`}<//></tbody></table></div>
    <${More} of=${more} total=${found.columns.length} what="columns" />
    <p class="hint">${number(found.columns.filter(({ type }) => type !== "ignored").length)} columns are modelled; those left out stay with the rows.</p></section>`;
}

function TypeChoice({ column, options, set }) {
  const { name } = column;
  const stated = options.exclude?.includes(name) ? LEFT_OUT : (options.types?.[name] ?? "");
  const found = column.type === "ignored" ? LEFT_OUT : column.type;
  return html`<select class="small" aria-label=${`Type of ${name}`} value=${stated} onChange=${(event) => set(withType(options, name, event.target.value))}>
    <option value="">${stated ? "as found" : found}</option>
    ${[...TYPES, LEFT_OUT].filter((type) => stated || type !== found).map((type) => html`<option key=${type} value=${type}>${type}</option>`)}</select>`;
}
