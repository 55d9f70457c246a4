// Versions of a model side by side: what differs, and which is best.
import { html, useState } from "../vendor/vendor.js";
import { all, call } from "./api.js";
import { number } from "./format.js";
import { Crumbs, Loaded, More, useLoaded, useMore } from "./widgets.js";

const HIDDEN = new Set(["seconds", "rows_per_second", "summary"]);

/** Return {path: value} of nested options and metrics. */
function flat(value, path = "") {
  if (value === null || typeof value !== "object") return { [path]: value };
  if (Array.isArray(value)) return { [path]: value.some((item) => item && typeof item === "object") ? `${value.length} items` : value.join(", ") };
  return Object.assign({}, ...Object.entries(value).map(([name, inner]) => flat(inner, path ? `${path}.${name}` : name)));
}

const factsOf = (one) => ({
  family: one.family,
  parameters: one.parameters,
  columns: one.columns?.join(", "),
  ...flat(one.metrics ?? {}),
  ...flat(one.flow ?? {}, "flow"),
  ...flat(one.preprocessing ?? {}, "preprocessing"),
  dataset: one.lineage.dataset_id,
});

/** Return the facts of some versions as rows, all or those that differ: [name, values, best value]. */
function comparison(versions, same) {
  const facts = versions.map(factsOf);
  const names = [...new Set(facts.flatMap(Object.keys))].filter((name) => !HIDDEN.has(name));
  const rows = names.map((name) => [name, facts.map((one) => one[name])]);
  return rows
    .filter(([, values]) => same || new Set(values.map(String)).size > 1)
    .map(([name, values]) => [name, values, name.endsWith("log_likelihood") ? Math.max(...values.filter(Number.isFinite)) : null]);
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
    async (signal) => listed.value && Promise.all(listed.value.slice(0, more.shown).map(({ version }) => call(`/v1/models/${name}/versions/${version}`, { signal }))),
    [listed.value, more.shown],
  );
  return html`<${Crumbs} path=${[["Models", "#/models"], [name, `#/models/${name}`]]} /><h1>Versions of ${name}</h1>
    <${Loaded} of=${listed}>${(all) => {
      const versions = whole.value ?? all.slice(0, more.shown);
      const rows = comparison(versions, same);
      return html`<p class="row"><label><input type="checkbox" checked=${same} onChange=${() => setSame(!same)} /> Show also what is equal</label>
          ${!whole.value && html`<span class="soft pulse" role="status">Loading the options…</span>`}</p>
        <section class="card"><div class="scroll" tabindex="0" role="region" aria-label="Versions side by side"><table>
          <thead><tr><th scope="col">Fact</th>${versions.map(({ version }) => html`<th key=${version} scope="col" class="number">
            <a href=${`#/models/${name}/${version}`}>version ${version}</a></th>`)}</tr></thead>
          <tbody>${rows.map(([fact, values, best]) => html`<tr key=${fact}><th scope="row">${fact.replaceAll("_", " ")}</th>
            ${values.map((value, at) => html`<td key=${at} class=${`number ${best !== null && value === best ? "better" : ""}`}>${typeof value === "number" ? number(value) : String(value ?? "–")}</td>`)}</tr>`)}</tbody></table></div>
          ${!rows.length && html`<p class="empty">These versions do not differ.</p>`}<${More} of=${more} total=${all.length} what="versions" /></section>`;
    }}<//>`;
}
