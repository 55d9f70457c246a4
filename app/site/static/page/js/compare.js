// Versions of a model side by side: what differs, and which is best.
import { html, useEffect, useMemo, useRef, useState } from "../vendor/vendor.js";
import { all, call } from "./api.js";
import { nats, number, plural } from "./format.js";
import { Crumbs, Elsewhere, Loaded, More, origin, Parts, useJson, useList, useLoaded } from "./widgets.js";

const HIDDEN = new Set(["seconds", "rows_per_second", "summary"]);
const WIDTH = 150; // of a version, in pixels
const NAME_WIDTH = 220;
const NARROW_NAME_WIDTH = 130;
const AHEAD = 2; // columns that are drawn beside those that are seen
const FEW = 5; // versions that are asked for one by one; more come with pages of the list
const WHOLE = "?include=columns&include=context_columns&include=flow&include=preprocessing";

/** Return {path: value} of nested options and metrics. */
function flat(value, path = "", into = {}) {
  if (value === null || typeof value !== "object") into[path] = value;
  else if (Array.isArray(value)) into[path] = value.some((item) => item && typeof item === "object") ? `${value.length} items` : value.join(", ");
  else for (const [name, inner] of Object.entries(value)) flat(inner, path ? `${path}.${name}` : name, into);
  return into;
}

const factsOf = (one) => ({
  version: one.version,
  facts: {
    family: one.family,
    parameters: one.parameters,
    columns: one.columns.join(", "),
    "given columns": one.context_columns.join(", ") || "none",
    ...flat(one.metrics ?? {}),
    ...flat(one.flow, "flow"),
    ...flat(one.preprocessing, "preprocessing"),
    dataset: one.lineage.dataset_id,
  },
});

/** Return the facts of some versions as rows: {name, values, best, differs}. */
function comparison(versions) {
  const names = new Set(versions.flatMap(({ facts }) => Object.keys(facts)));
  return [...names].filter((name) => !HIDDEN.has(name)).map((name) => {
    const values = versions.map(({ facts }) => facts[name]);
    return {
      name,
      values,
      best: name.endsWith("log_likelihood") ? Math.max(...values.filter(Number.isFinite)) : null,
      differs: values.some((value) => value !== values[0]),
    };
  });
}

/** Versions of a model side by side; `chosen` has the numbers of some, none: all. */
export function Compare({ name, chosen }) {
  return html`<${Crumbs} path=${[["Models", "#/models"], [name, `#/models/${name}`]]} /><h1>Versions of ${name}</h1>
    ${chosen.length === 2 && html`<${Better} name=${name} chosen=${chosen} />`}
    ${chosen.length ? html`<${Chosen} name=${name} chosen=${chosen} />` : html`<${All} name=${name} />`}
    ${chosen.length === 2 && html`<${Elsewhere} curl=${`curl -s "${origin}${pathOf(name, ...chosen)}"`} shell=${`densityd call GET "${pathOf(name, ...chosen)}"`} />
      <p><a href=${`#/models/${name}/compare`}>All versions side by side</a></p>`}`;
}

const pathOf = (name, one, other) => `/v1/models/${name}:${one}/compare?with=${name}:${other}`;

/** Which of two versions is better, by how much and how surely. */
function Better({ name, chosen }) {
  const [one, other] = [...chosen].sort((a, b) => b - a);
  const loaded = useJson(pathOf(name, one, other));
  if (loaded.problem?.type?.endsWith("/compare-unavailable")) return html`<p class="note">${loaded.problem.message}</p>`;
  return html`<${Loaded} of=${loaded}>${({ model, better, sure, difference, standard_error: error, rows, unseen, sentence, dataset_id: dataset }) => html`
    <section class=${`note ${better === null || !sure ? "" : "good"}`} aria-label="Which is better"><p><strong>${sentence}</strong></p>
      <p>${sure ? "This is sure" : "This is not sure"}: the difference is ${(Math.abs(difference) / error).toFixed(1)} standard errors, on ${plural(rows, "row")} ${unseen ? "that neither was trained on" : "of which some were trained on"}.</p>
      ${better && html`<p><a class="button" href=${`#/models/${better.replace(":", "/")}`}>Look at version ${better.split(":")[1]}</a></p>`}
      <details><summary>Details</summary><dl class="facts"><dt>Difference of the log density of a row</dt><dd>${nats(Math.abs(difference))} ± ${nats(error)} nats, in favour of ${difference > 0 ? model : `${name}:${other}`}</dd>
        <dt>Dataset of the rows</dt><dd><a href=${`#/datasets/${dataset}`}>${dataset}</a></dd></dl></details></section>`}<//>`;
}

function Chosen({ name, chosen }) {
  const path = `/v1/models/${name}/versions`;
  const loaded = useLoaded(async (signal) => {
    if (chosen.length <= FEW) return Promise.all(chosen.map((number) => call(`${path}/${number}`, { signal })));
    return (await all(path + WHOLE, { signal })).filter(({ version }) => chosen.includes(version));
  }, []);
  return html`<${Loaded} of=${loaded}>${(versions) => html`<${Differences} name=${name} versions=${versions} folded=${versions.length === 2} />`}<//>`;
}

function All({ name }) {
  const loaded = useList(`/v1/models/${name}/versions${WHOLE}`);
  return html`<${Loaded} of=${loaded}>${({ items, total }) => html`<${Differences} name=${name} versions=${items} /><${More} of=${loaded.more} total=${total} what="versions" />`}<//>`;
}

function Differences({ name, versions, folded }) {
  const [same, setSame] = useState(false);
  const described = useMemo(() => versions.map(factsOf), [versions]);
  const rows = useMemo(() => comparison(described), [described]);
  const shown = same ? rows : rows.filter(({ differs }) => differs);
  const facts = html`<p class="row"><label><input type="checkbox" checked=${same} onChange=${() => setSame(!same)} /> Show also what is equal</label>
      <span class="soft" role="status">${plural(shown.length, "fact")}</span></p>
    <section class="card"><${SideBySide} name=${name} versions=${described} rows=${shown} />
      ${!shown.length && html`<p class="empty">${versions.length > 1 ? "These versions do not differ." : "There is one version only; a second one to compare it with comes from another training under the same name."}</p>`}</section>`;
  return folded ? html`<details><summary>All facts side by side</summary>${facts}</details>` : facts;
}

/** A table with a column for each version, of which those are drawn that are seen. */
function SideBySide({ name, versions, rows }) {
  const box = useRef(null);
  const [view, setView] = useState({ start: 0, end: AHEAD, nameWidth: NAME_WIDTH });
  useEffect(() => {
    const element = box.current;
    const look = () => {
      const { scrollLeft, clientWidth } = element;
      const start = Math.max(0, Math.floor(scrollLeft / WIDTH) - AHEAD);
      const end = Math.ceil((scrollLeft + clientWidth) / WIDTH) + AHEAD;
      const nameWidth = clientWidth < 600 ? NARROW_NAME_WIDTH : NAME_WIDTH;
      setView((now) => (now.start === start && now.end === end && now.nameWidth === nameWidth ? now : { start, end, nameWidth }));
    };
    const sizes = new ResizeObserver(look);
    sizes.observe(element);
    element.addEventListener("scroll", look, { passive: true });
    return () => sizes.disconnect();
  }, []);
  const start = Math.min(view.start, versions.length);
  const end = Math.min(view.end, versions.length);
  const seen = versions.slice(start, end);
  const [before, after] = [start * WIDTH, (versions.length - end) * WIDTH];
  const gap = (width) => width > 0 && html`<td></td>`;
  return html`<div class="scroll side" ref=${box} tabindex="0" role="region" aria-label="Versions side by side">
    <table width=${view.nameWidth + versions.length * WIDTH} aria-colcount=${versions.length + 1}>
      <colgroup><col width=${view.nameWidth} />${before > 0 && html`<col width=${before} />`}
        ${seen.map(({ version }) => html`<col key=${version} width=${WIDTH} />`)}${after > 0 && html`<col width=${after} />`}</colgroup>
      <thead><tr><th scope="col">Fact</th>${gap(before)}${seen.map(({ version }, at) => html`<th key=${version} scope="col" class="number" aria-colindex=${start + at + 2}>
        <a href=${`#/models/${name}/${version}`}>version ${version}</a></th>`)}${gap(after)}</tr></thead>
      <tbody><${Parts} of=${rows} size=${12}>${(row) => html`<tr key=${row.name}><th scope="row">${row.name.replaceAll("_", " ")}</th>${gap(before)}
        ${seen.map(({ version }, at) => {
          const value = row.values[start + at];
          return html`<td key=${version} aria-colindex=${start + at + 2} class=${`number ${row.best !== null && value === row.best ? "better" : ""}`}>${typeof value === "number" ? number(value) : String(value ?? "–")}</td>`;
        })}${gap(after)}</tr>`}<//></tbody></table></div>`;
}
