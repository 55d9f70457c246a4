// The registry: models, their versions and aliases; one version in tabs; versions side by side.
import { html, useState } from "../vendor/vendor.js";
import { all, call, request } from "./api.js";
import { Fit } from "./fit.js";
import { ago, bytes, nats, number, plural } from "./format.js";
import { Labels, SEARCH_HINT, searchOf, Tags } from "./labels.js";
import { Sample } from "./sample.js";
import { Score } from "./score.js";
import { Confirm, Crumbs, Elsewhere, Field, Loaded, origin, ProblemNote, useAction, useLoaded } from "./widgets.js";

export function Models() {
  const [wanted, setWanted] = useState("");
  const loaded = useLoaded((signal) => all(`/v1/models${searchOf(wanted)}`, 2000, { signal }), [wanted]);
  return html`<h1>Models</h1><${Loaded} of=${loaded}>${(models) => {
    if (!models.length && !wanted) return html`<p class="empty">No model yet. <a href="#/datasets">Send a table</a> and train one.</p>`;
    return html`<section class="card"><p class="row"><label for="find" class="hidden-text">${SEARCH_HINT}</label>
        <input id="find" type="search" placeholder=${SEARCH_HINT} value=${wanted} onInput=${(event) => setWanted(event.target.value)} />
        <span class="soft" role="status">${plural(models.length, "model")}</span></p>
      <div class="scroll" tabindex="0" role="region" aria-label="Models"><table>
        <thead><tr><th scope="col">Name</th><th scope="col" class="number">Newest version</th><th scope="col" class="number">Held-out log likelihood</th><th scope="col">Aliases</th><th scope="col">Tags</th><th scope="col">Made</th></tr></thead>
        <tbody>${models.slice(0, 500).map((model) => html`<tr key=${model.name}><td><a href=${`#/models/${model.name}`}>${model.name}</a></td><td class="number">${model.latest_version}</td>
          <td class="number">${nats(model.latest.metrics?.test_log_likelihood)}</td><td>${Object.entries(model.aliases).map(([alias, version]) => `${alias} is ${version}`).join(", ")}</td><td><${Tags} tags=${model.tags} /></td><td>${ago(model.created_at)}</td></tr>`)}</tbody></table></div></section>`;
  }}<//>`;
}

const TABS = [["fit", "Fit"], ["score", "Score rows"], ["sample", "Sample"], ["facts", "Facts"], ["versions", "Versions and aliases"]];

export function Model({ name, version, tab }) {
  const loaded = useLoaded(async (signal) => {
    const model = await call(`/v1/models/${name}`, { signal });
    return { model, found: await call(`/v1/models/${name}/versions/${version ?? model.latest_version}`, { signal }) };
  }, [name, version]);
  return html`<${Crumbs} path=${[["Models", "#/models"]]} /><${Loaded} of=${loaded}>${({ model, found }) => {
    const ref = `${name}:${found.version}`;
    const test = found.metrics?.test_log_likelihood ?? found.metrics?.validation_log_likelihood;
    return html`<div class="head"><div><h1>${name} <span class="soft">version ${found.version}</span></h1>
        <p class="soft">${familyOf(found)}, ${plural(found.columns.length, "column")}, trained ${ago(found.created_at)}${test !== undefined ? `; log likelihood of a held-out row ${nats(test)} nats` : ""}
          ${found.aliases.map((alias) => html` <span key=${alias} class="state good">${alias}</span>`)}</p></div></div>
      <${Labels} what="version" path=${`/v1/models/${name}/versions/${found.version}`} of=${found} again=${loaded.again} />
      <nav class="tabs" aria-label="Of this model">${TABS.map(([id, title]) => html`<a key=${id} href=${`#/models/${name}/${found.version}/${id}`} aria-current=${id === tab ? "page" : undefined}>${title}</a>`)}</nav>
      ${tab === "fit" && html`<${Fit} version=${found} reference=${ref} />`}
      ${tab === "score" && html`<${Score} version=${found} reference=${ref} />`}
      ${tab === "sample" && html`<${Sample} version=${found} reference=${ref} />`}
      ${tab === "facts" && html`<${Facts} found=${found} />`}
      ${tab === "versions" && html`<${Versions} model=${model} again=${loaded.again} />`}`;
  }}<//>`;
}

const familyOf = (found) => (found.family === "mixed" ? `mixed table with ${found.flow.flow ? found.flow.flow.family.toUpperCase() : "categories alone"}` : found.family.toUpperCase());

function Facts({ found }) {
  const get = useAction(async () => {
    const blob = await (await request(`/v1/models/${found.name}/versions/${found.version}/checkpoint`)).blob();
    const url = URL.createObjectURL(blob);
    Object.assign(document.createElement("a"), { href: url, download: `${found.name}-${found.version}.safetensors` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  });
  const { lineage, metrics } = found;
  const facts = [
    ["Kind of flow", familyOf(found)],
    ["Columns", found.columns.join(", ")],
    ["Given columns", found.context_columns?.length ? found.context_columns.join(", ") : null],
    ["Parameters", number(found.parameters)],
    ["Data", lineage.dataset_id && html`<a href=${`#/datasets/${lineage.dataset_id}`}>${lineage.dataset_id}</a>`],
    ["Job", lineage.job_id ? html`<a href=${`#/jobs/${lineage.job_id}`}>${lineage.job_id}</a>` : "none; it was imported"],
    ["Seed", lineage.seed],
    ["Calibrated on", found.held_out && plural(found.held_out.rows, "held-out row")],
    ["Weights", `${bytes(found.checkpoint.bytes)}, SHA-256 ${found.checkpoint.sha256}`],
    ["Made", new Date(found.created_at).toLocaleString()],
  ].filter(([, value]) => value !== null && value !== undefined && value !== "");
  return html`<section class="card"><h2>Facts</h2><dl class="facts">${facts.map(([name, value]) => html`<dt key=${name}>${name}</dt><dd>${value}</dd>`)}</dl>
      <p class="row"><button type="button" disabled=${get.busy} onClick=${get.run}>Download the weights</button></p><${ProblemNote} problem=${get.problem} /></section>
    <section class="card"><h2>Metrics</h2><dl class="facts">${Object.entries(metrics ?? {}).filter(([, value]) => typeof value !== "object").map(([name, value]) => html`<dt key=${name}>${name.replaceAll("_", " ")}</dt><dd>${typeof value === "number" ? number(value) : String(value)}</dd>`)}</dl></section>
    <section class="card"><details><summary>The whole specification</summary><pre tabindex="0" aria-label="Specification">${JSON.stringify({ flow: found.flow, preprocessing: found.preprocessing, types: found.types }, null, 2)}</pre></details></section>
    <${Elsewhere} curl=${`curl -s ${origin}/v1/models/${found.name}/versions/${found.version}`} shell=${`densityd models show ${found.name}:${found.version}`} />`;
}

function Versions({ model, again }) {
  const loaded = useLoaded((signal) => all(`/v1/models/${model.name}/versions`, 1000, { signal }), [model.name]);
  const [undo, setUndo] = useState(null);
  const [chosen, setChosen] = useState([]);
  const move = useAction(async (alias, version) => {
    const before = model.aliases[alias];
    if (version === null) await call(`/v1/models/${model.name}/aliases/${alias}`, { method: "DELETE" });
    else await call(`/v1/models/${model.name}/aliases/${alias}`, { method: "PUT", json: { version } });
    setUndo({ alias, version: before ?? null, now: version });
    again();
  });
  const remove = useAction(async (version) => { await call(`/v1/models/${model.name}/versions/${version}`, { method: "DELETE" }); loaded.again(); });
  const toggle = (version) => setChosen(chosen.includes(version) ? chosen.filter((one) => one !== version) : [...chosen, version]);
  const compare = `#/models/${model.name}/compare`;
  return html`<${ProblemNote} problem=${move.problem ?? remove.problem} />
    ${undo && html`<p class="note row" role="status">${undo.now === null ? `The alias ${undo.alias} was deleted.` : `${undo.alias} now means version ${undo.now}.`}
      <button type="button" class="quiet" onClick=${() => { const { alias, version } = undo; move.run(alias, version).then(() => setUndo(null)); }}>Undo</button></p>`}
    <${Labels} what="model" path=${`/v1/models/${model.name}`} of=${model} again=${again} />
    <section class="card"><h2>Aliases</h2><p class="hint">Requests for ${model.name} use the alias production if there is one, else the newest version.</p>
      <${AliasForm} model=${model} move=${move} />
      ${Object.entries(model.aliases).map(([alias, version]) => html`<p key=${alias} class="row"><strong>${alias}</strong> is version ${version} <button type="button" class="quiet" onClick=${() => move.run(alias, null)}>Delete this alias</button></p>`)}</section>
    <${Loaded} of=${loaded}>${(versions) => {
      const best = Math.max(...versions.map((one) => one.metrics?.test_log_likelihood ?? -Infinity));
      return html`<section class="card"><h2>Versions</h2><p class="row"><a class="button" href=${chosen.length > 1 ? `${compare}?${chosen.join(",")}` : compare} onClick=${() => sessionStorage.setItem("densityd-compare", JSON.stringify(chosen))}>Compare ${chosen.length > 1 ? chosen.length : "all"}</a></p>
        <div class="scroll" tabindex="0" role="region" aria-label="Versions"><table>
        <thead><tr><th scope="col"><span class="hidden-text">Chosen</span></th><th scope="col">Version</th><th scope="col">Kind</th><th scope="col" class="number">Test log likelihood</th><th scope="col" class="number">Parameters</th><th scope="col">Aliases</th><th scope="col">Trained</th><th scope="col"><span class="hidden-text">Actions</span></th></tr></thead>
        <tbody>${versions.map((one) => html`<tr key=${one.version}><td><input type="checkbox" aria-label=${`Compare version ${one.version}`} checked=${chosen.includes(one.version)} onChange=${() => toggle(one.version)} /></td>
          <td><a href=${`#/models/${model.name}/${one.version}`}>${one.version}</a></td><td>${one.family}</td>
          <td class=${`number ${one.metrics?.test_log_likelihood === best ? "better" : ""}`}>${nats(one.metrics?.test_log_likelihood)}</td><td class="number">${number(one.parameters)}</td><td>${one.aliases.join(", ")}</td><td>${ago(one.created_at)}</td>
          <td><${Confirm} label="Delete" question=${`Delete version ${one.version} for good?`} busy=${remove.busy} act=${() => remove.run(one.version)} /></td></tr>`)}</tbody></table></div></section>`;
    }}<//>
    <${Elsewhere} curl=${`curl -s -X PUT ${origin}/v1/models/${model.name}/aliases/production \\\n  -H 'Content-Type: application/json' -d '{"version": ${model.latest_version}}'`}
      python=${`from densityd.client import Client\n\nwith Client("${origin}") as client:\n    client.models.set_alias("${model.name}", "production", ${model.latest_version})`} shell=${`densityd models alias ${model.name} production ${model.latest_version}`} />`;
}

function AliasForm({ model, move }) {
  const [alias, setAlias] = useState("production");
  const [version, setVersion] = useState(String(model.latest_version));
  return html`<form class="row" onSubmit=${(event) => { event.preventDefault(); move.run(alias, Number(version)); }}>
    <label for="alias">Let</label><input id="alias" required pattern="[a-z0-9][a-z0-9._\\-]{0,63}" value=${alias} onInput=${(event) => setAlias(event.target.value)} />
    <label for="target">mean version</label><input id="target" type="number" min="1" required value=${version} onInput=${(event) => setVersion(event.target.value)} />
    <button disabled=${move.busy}>Set</button></form>`;
}

const HIDDEN = new Set(["seconds", "rows_per_second"]);

/** Return {path: value} of nested options and metrics. */
export function flat(value, path = "") {
  if (value === null || typeof value !== "object") return { [path]: value };
  if (Array.isArray(value)) return value.some((item) => item && typeof item === "object") ? { [path]: `${value.length} items` } : { [path]: value.join(", ") };
  return Object.assign({}, ...Object.entries(value).map(([name, inner]) => flat(inner, path ? `${path}.${name}` : name)));
}

export function Compare({ name }) {
  const [same, setSame] = useState(false);
  const loaded = useLoaded(async (signal) => {
    const versions = await all(`/v1/models/${name}/versions`, 200, { signal });
    const wanted = JSON.parse(sessionStorage.getItem("densityd-compare") ?? "[]");
    const chosen = versions.filter(({ version }) => wanted.length < 2 || wanted.includes(version));
    const whole = chosen.length <= 12 ? await Promise.all(chosen.map(({ version }) => call(`/v1/models/${name}/versions/${version}`, { signal }))) : chosen;
    return whole.map((one) => ({ version: one.version, facts: { family: one.family, parameters: one.parameters, columns: one.columns?.join(", "), ...flat(one.metrics ?? {}), ...flat(one.flow ?? {}, "flow"), ...flat(one.preprocessing ?? {}, "preprocessing"), dataset: one.lineage.dataset_id } }));
  }, [name]);
  return html`<${Crumbs} path=${[["Models", "#/models"], [name, `#/models/${name}`]]} /><h1>Versions of ${name}</h1>
    <${Loaded} of=${loaded}>${(versions) => {
      const names = [...new Set(versions.flatMap(({ facts }) => Object.keys(facts)))].filter((fact) => !HIDDEN.has(fact));
      const differing = names.filter((fact) => new Set(versions.map(({ facts }) => String(facts[fact]))).size > 1);
      const shown = same ? names : differing;
      return html`<p class="row"><label><input type="checkbox" checked=${same} onChange=${() => setSame(!same)} /> Show also what is equal</label></p>
        <section class="card"><div class="scroll" tabindex="0" role="region" aria-label="Versions side by side"><table>
          <thead><tr><th scope="col">Fact</th>${versions.map(({ version }) => html`<th key=${version} scope="col" class="number"><a href=${`#/models/${name}/${version}`}>version ${version}</a></th>`)}</tr></thead>
          <tbody>${shown.map((fact) => {
            const values = versions.map(({ facts }) => facts[fact]);
            const best = fact.endsWith("log_likelihood") ? Math.max(...values.filter(Number.isFinite)) : null;
            return html`<tr key=${fact}><th scope="row">${fact.replaceAll("_", " ")}</th>${values.map((value, at) => html`<td key=${at} class=${`number ${value === best && value !== undefined ? "better" : ""}`}>${typeof value === "number" ? number(value) : String(value ?? "–")}</td>`)}</tr>`;
          })}</tbody></table></div>${!shown.length && html`<p class="empty">These versions do not differ.</p>`}</section>`;
    }}<//>`;
}
