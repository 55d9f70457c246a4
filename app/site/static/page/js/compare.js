// Versions of a model side by side: what differs, and which is best.
import { html, useEffect, useMemo, useRef, useState } from "../vendor/vendor.js";
import { all, call, each } from "./api.js";
import { number } from "./format.js";
import { Crumbs, Loaded, More, Parts, ProblemNote, useLoaded, useMore } from "./widgets.js";

const HIDDEN = new Set(["seconds", "rows_per_second", "summary"]);
const WIDTH = 150; // of a version, in pixels
const NAME_WIDTH = 220;
const NARROW_NAME_WIDTH = 130;
const AHEAD = 2; // columns that are drawn beside those that are seen

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
    columns: one.columns?.join(", "),
    ...flat(one.metrics ?? {}),
    ...flat(one.flow ?? {}, "flow"),
    ...flat(one.preprocessing ?? {}, "preprocessing"),
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

/** versions: their numbers; none: all. */
export function Compare({ name, versions: wanted }) {
  const [same, setSame] = useState(false);
  const more = useMore(200);
  const listed = useLoaded(async (signal) => {
    const versions = await all(`/v1/models/${name}/versions`, { signal });
    return wanted.length ? versions.filter(({ version }) => wanted.includes(version)) : versions;
  }, [name]);
  // The list has metrics; the options of each version follow.
  const whole = useLoaded(
    async (signal) => listed.value && each(listed.value.slice(0, more.shown), async ({ version }) => factsOf(await call(`/v1/models/${name}/versions/${version}`, { signal }))),
    [listed.value, more.shown],
  );
  const versions = useMemo(() => whole.value ?? listed.value?.slice(0, more.shown).map(factsOf) ?? [], [whole.value, listed.value, more.shown]);
  const rows = useMemo(() => comparison(versions), [versions]);
  const shown = same ? rows : rows.filter(({ differs }) => differs);
  return html`<${Crumbs} path=${[["Models", "#/models"], [name, `#/models/${name}`]]} /><h1>Versions of ${name}</h1>
    <${Loaded} of=${listed}>${(all) => html`<p class="row"><label><input type="checkbox" checked=${same} onChange=${() => setSame(!same)} /> Show also what is equal</label>
        ${whole.loading && html`<span class="soft pulse" role="status">Loading the options…</span>`}</p>
      <${ProblemNote} problem=${whole.problem} again=${whole.again} />
      <section class="card"><${SideBySide} name=${name} versions=${versions} rows=${shown} />
        ${!shown.length && html`<p class="empty">These versions do not differ.</p>`}<${More} of=${more} total=${all.length} what="versions" /></section>`}<//>`;
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
