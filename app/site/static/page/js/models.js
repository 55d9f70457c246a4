// The registry: models, their versions and aliases; one version in tabs.
import { html, useState } from "../vendor/vendor.js";
import { all, call, first, request } from "./api.js";
import { Evidence } from "./evidence.js";
import { Fit } from "./fit.js";
import { ago, bytes, familyName, nats, number, percent, plural } from "./format.js";
import { Labels, SEARCH_HINT, searchOf, Tags } from "./labels.js";
import { save } from "./rows.js";
import { Sample } from "./sample.js";
import { Score } from "./score.js";
import { Confirm, counted, Crumbs, Elsewhere, Loaded, More, origin, Parts, ProblemNote, useAction, useList, useLoaded, useMore } from "./widgets.js";

export function Models() {
  const [wanted, setWanted] = useState("");
  const loaded = useList(`/v1/models${searchOf(wanted)}`);
  return html`<h1>Models</h1><${Loaded} of=${loaded}>${({ items, total }) => {
    if (!items.length && !wanted) return html`<p class="empty">No model yet. <a href="#/datasets">Send a table</a> and train one.</p>`;
    return html`<section class="card"><p class="row"><label for="find" class="hidden-text">${SEARCH_HINT}</label>
        <input id="find" type="search" placeholder=${SEARCH_HINT} value=${wanted} onInput=${(event) => setWanted(event.target.value)} />
        <span class="soft" role="status">${counted({ items, total }, "model")}</span></p>
      <div class="scroll" tabindex="0" role="region" aria-label="Models"><table>
        <thead><tr><th scope="col">Name</th><th scope="col" class="number">Newest version</th>
          <th scope="col" class="number">Validation log likelihood</th><th scope="col">Aliases</th><th scope="col">Tags</th>
          <th scope="col">Made</th></tr></thead>
        <tbody><${Parts} of=${items}>${(model) => html`<tr key=${model.name}><td><a href=${`#/models/${model.name}`}>${model.name}</a></td>
          <td class="number">${model.latest_version}</td>
          <td class="number">${nats(model.latest.metrics?.best_robust_validation_log_likelihood)}</td>
            <td>${Object.entries(model.aliases).map(([alias, version]) => `${alias} is ${version}`).join(", ")}</td><td>
            <${Tags} tags=${model.tags} /></td><td>${ago(model.created_at)}</td></tr>`}<//></tbody></table></div>
            <${More} of=${loaded.more} total=${total} what="models" /></section>`;
  }}<//>`;
}

const TABS = [["fit", "Fit"], ["score", "Score rows"], ["sample", "Sample"], ["facts", "Facts"], ["versions", "Versions and aliases"]];
const LATENT = "latent"; // family of a posterior of latent variables beside the model of the rows that they explain
const TABS_OF_LATENT = [["fit", "Latent variables"], ["evidence", "Evidence of rows"], ["sample", "Posterior of a row"], ...TABS.slice(3)];

export function Model({ name, version, tab }) {
  const loaded = useLoaded(async (signal) => {
    const versionOf = (number) => call(`/v1/models/${name}/versions/${number}`, { signal });
    if (version === undefined) {
      const model = await call(`/v1/models/${name}`, { signal });
      return { model, found: await versionOf(model.latest_version) };
    }
    const [model, found] = await Promise.all([call(`/v1/models/${name}`, { signal }), versionOf(version)]);
    return { model, found };
  }, [name, version]);
  return html`<${Crumbs} path=${[["Models", "#/models"]]} /><${Loaded} of=${loaded} title=${name}>${({ model, found }) => {
    const ref = `${name}:${found.version}`;
    const reached = found.metrics?.best_robust_validation_log_likelihood ?? found.metrics?.validation_log_likelihood;
    return html`<div class="head"><div><h1>${name} <span class="soft">version ${found.version}</span></h1>
        <p class="soft">${familyOf(found)}, ${found.family === LATENT ? `${found.columns.length} for ${plural(found.context_columns.length, "column")}` : plural(found.columns.length, "column")}, trained ${ago(found.created_at)}${reached !== undefined ? `; log likelihood of a validation row ${nats(reached)} nats` : ""}
          ${found.aliases.map((alias) => html` <span key=${alias} class="state good">${alias}</span>`)}</p></div></div>
      <${Labels} what="version" path=${`/v1/models/${name}/versions/${found.version}`} of=${found} again=${loaded.again} />
      <nav class="tabs" aria-label="Of this model">${(found.family === LATENT ? TABS_OF_LATENT : TABS).map(([id, title]) => html`<a key=${id} href=${`#/models/${name}/${found.version}/${id}`} aria-current=${id === tab ? "page" : undefined}>${title}</a>`)}</nav>
      ${tab === "fit" && html`<${Fit} version=${found} />`}
      ${tab === "score" && html`<${Score} version=${found} reference=${ref} />`}
      ${tab === "evidence" && html`<${Evidence} version=${found} reference=${ref} />`}
      ${tab === "sample" && html`<${Sample} version=${found} reference=${ref} />`}
      ${tab === "facts" && html`<${Facts} found=${found} />`}
      ${tab === "versions" && html`<${Versions} model=${model} again=${loaded.again} />`}`;
  }}<//>`;
}

function familyOf({ family, flow }) {
  if (family === "mixed") return `mixed table with ${flow.flow ? familyName(flow.flow.family) : "categories alone"}`;
  if (family === LATENT) return `latent variables, posterior by ${familyName(flow.flow.family)}`;
  return familyName(family);
}

function Facts({ found }) {
  const get = useAction(async () => {
    const response = await request(`/v1/models/${found.name}/versions/${found.version}/checkpoint`);
    save(`${found.name}-${found.version}.safetensors`, await response.blob());
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
    ["Weights", `${bytes(found.checkpoint.bytes)}, SHA-256 ${found.checkpoint.sha256}`],
    ["Made", new Date(found.created_at).toLocaleString()],
  ].filter(([, value]) => value !== null && value !== undefined && value !== "");
  return html`<section class="card"><h2>Facts</h2><dl class="facts">${facts.map(([name, value]) => html`<dt key=${name}>${name}</dt><dd>${value}</dd>`)}</dl>
      <p class="row"><button type="button" disabled=${get.busy} onClick=${get.run}>Download the weights</button></p><${ProblemNote} problem=${get.problem} /></section>
    ${found.held_out && html`<${Calibration} of=${found.held_out} />`}
    <section class="card"><h2>Metrics</h2>
      <dl class="facts">${Object.entries(metrics ?? {}).filter(([, value]) => typeof value !== "object").map(([name, value]) => html`<dt key=${name}>${name.replaceAll("_", " ")}</dt>
      <dd>${typeof value === "number" ? number(value) : String(value)}</dd>`)}</dl></section>
    <section class="card"><details><summary>The whole specification</summary>
      <pre tabindex="0" role="group" aria-label="Specification">${JSON.stringify({ flow: found.flow, preprocessing: found.preprocessing, types: found.types }, null, 2)}</pre></details></section>
    <${Elsewhere} curl=${`curl -s ${origin}/v1/models/${found.name}/versions/${found.version}`} shell=${`densityd show ${found.name}:${found.version}`} />`;
}

/** Densities that rows of given ranks have, as thresholds for scores. */
function Calibration({ of: { rows, part, quantiles, standard_errors: errors } }) {
  return html`<section class="card"><h2>Calibration</h2><p class="hint">Ranks of scores come from ${plural(rows, `${part} row`)}, which ${part === "validation" ? "chose the epoch: ranks may be a little low." : "the training has not seen."}</p>
    <div class="scroll" tabindex="0" role="region" aria-label="Calibration"><table><thead><tr><th scope="col" class="number">Of these rows</th><th scope="col" class="number">have a log density below</th>
      <th scope="col" class="number">Standard error of the share</th></tr></thead>
      <tbody>${Object.entries(quantiles).sort(([one], [other]) => one - other).map(([share, value]) => html`<tr key=${share}>
        <td class="number">${percent(Number(share))}</td><td class="number">${nats(value)}</td>
        <td class="number">${percent(errors[share])}</td></tr>`)}</tbody></table></div></section>`;
}

function Versions({ model, again }) {
  const loaded = useLoaded((signal) => all(`/v1/models/${model.name}/versions?include=flow`, { signal }), [model.name, JSON.stringify(model.aliases)]);
  const [undo, setUndo] = useState(null);
  const [chosen, setChosen] = useState([]);
  const move = useAction(async (alias, version, reason) => {
    const before = model.aliases[alias];
    if (version === null) await call(`/v1/models/${model.name}/aliases/${alias}`, { method: "DELETE" });
    else await call(`/v1/models/${model.name}/aliases/${alias}`, { method: "PUT", json: { version, ...(reason && { reason }) } });
    setUndo({ alias, version: before ?? null, now: version });
    again();
  });
  const remove = useAction(async (version) => { await call(`/v1/models/${model.name}/versions/${version}`, { method: "DELETE" }); loaded.again(); });
  const more = useMore(200);
  const toggle = (version) => setChosen(chosen.includes(version) ? chosen.filter((one) => one !== version) : [...chosen, version]);
  return html`<${ProblemNote} problem=${move.problem ?? remove.problem} />
    ${undo && html`<p class="note row" role="status">${undo.now === null ? `The alias ${undo.alias} was deleted.` : `${undo.alias} now means version ${undo.now}.`}
      <button type="button" class="quiet" onClick=${() => { const { alias, version } = undo; move.run(alias, version, version && "undone").then(() => setUndo(null)); }}>Undo</button></p>`}
    <${Labels} what="model" path=${`/v1/models/${model.name}`} of=${model} again=${again} />
    <section class="card"><h2>Aliases</h2><p class="hint">To promote a version, point an alias at it. Requests for ${model.name} use the alias production if there is one, else the newest version.</p>
      <${AliasForm} model=${model} move=${move} />
      ${Object.entries(model.aliases).map(([alias, version]) => html`<p key=${alias} class="row">
        <strong>${alias}</strong> is version ${version} <button type="button" class="quiet" onClick=${() => move.run(alias, null)}>Delete this alias</button></p>`)}
      <${History} model=${model} round=${undo} /></section>
    <${Loaded} of=${loaded}>${(versions) => {
      const best = Math.max(...versions.map((one) => one.metrics?.best_robust_validation_log_likelihood ?? -Infinity));
      return html`<section class="card"><h2>Versions</h2><p class="row">
        <a class="button" href=${`#/models/${model.name}/compare${chosen.length > 1 ? `/${chosen.join(",")}` : ""}`}>Compare ${chosen.length > 1 ? chosen.length : "all"}</a></p>
        <div class="scroll" tabindex="0" role="region" aria-label="Versions"><table>
        <thead><tr><th scope="col"><span class="hidden-text">Chosen</span></th><th scope="col">Version</th><th scope="col">Kind</th>
          <th scope="col" class="number">Validation log likelihood</th><th scope="col" class="number">Parameters</th><th scope="col">Aliases</th>
          <th scope="col">Trained</th><th scope="col"><span class="hidden-text">Actions</span></th></tr></thead>
        <tbody><${Parts} of=${versions.slice(0, more.shown)}>${(one) => html`<tr key=${one.version}><td>
          <input type="checkbox" aria-label=${`Compare version ${one.version}`} checked=${chosen.includes(one.version)} onChange=${() => toggle(one.version)} /></td>
          <td><a href=${`#/models/${model.name}/${one.version}`}>${one.version}</a></td><td>${familyOf(one)}</td>
          <td class=${`number ${one.metrics?.best_robust_validation_log_likelihood === best ? "better" : ""}`}>${nats(one.metrics?.best_robust_validation_log_likelihood)}</td>
            <td class="number">${number(one.parameters)}</td><td>${one.aliases.join(", ")}</td><td>${ago(one.created_at)}</td>
          <td>
            <${Confirm} label="Delete" question=${`Delete version ${one.version} for good?`} busy=${remove.busy} act=${() => remove.run(one.version)} /></td></tr>`}<//></tbody></table></div>
        <${More} of=${more} total=${versions.length} what="versions" /></section>`;
    }}<//>
    <${Elsewhere} curl=${`curl -s -X PUT ${origin}/v1/models/${model.name}/aliases/production \\\n  -H 'Content-Type: application/json' -d '{"version": ${model.latest_version}}'`}
      python=${`from densityd.client import Client\n\nwith Client("${origin}") as client:\n    client.models.set_alias("${model.name}", "production", ${model.latest_version})`} shell=${`densityd alias ${model.name} production ${model.latest_version}`} />`;
}

function AliasForm({ model, move }) {
  const [alias, setAlias] = useState("production");
  const [version, setVersion] = useState(String(model.latest_version));
  const [reason, setReason] = useState("");
  return html`<form class="row" onSubmit=${(event) => { event.preventDefault(); move.run(alias, Number(version), reason.trim()).then(() => setReason("")); }}>
    <label for="alias">Let</label><input id="alias" required pattern="[a-z0-9][a-z0-9._\\-]{0,63}" value=${alias} onInput=${(event) => setAlias(event.target.value)} />
    <label for="target">mean version</label><input id="target" type="number" min="1" required value=${version} onInput=${(event) => setVersion(event.target.value)} />
    <label for="reason">because</label>
      <input id="reason" size="32" maxlength="500" placeholder="optional; stays in the history" value=${reason} onInput=${(event) => setReason(event.target.value)} />
    <button disabled=${move.busy}>Set</button></form>`;
}

/** Which version each alias meant from when on, and why. */
function History({ model, round }) {
  const loaded = useLoaded((signal) => first(`/v1/models/${model.name}/history`, 200, { signal }), [model.name, JSON.stringify(model.aliases), round]);
  return html`<${Loaded} of=${loaded}>${({ items, isWhole }) => items.length > 0 && html`<details><summary>History of the aliases</summary>
    <div class="scroll" tabindex="0" role="region" aria-label="History of the aliases"><table>
      <thead><tr><th scope="col">Alias</th><th scope="col">Version</th><th scope="col">Because</th><th scope="col">When</th></tr></thead>
      <tbody>${items.map((change, at) => html`<tr key=${at}><td>${change.alias}</td><td>${change.version ?? "deleted"}</td>
        <td>${change.reason ?? ""}</td><td>${new Date(change.created_at).toLocaleString()}</td></tr>`)}</tbody></table></div>
    ${!isWhole && html`<p class="hint">The newest ${plural(items.length, "change")}; <code>densityd alias ${model.name}</code> lists all.</p>`}</details>`}<//>`;
}
