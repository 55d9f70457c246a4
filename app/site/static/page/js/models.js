// The registry: models, and one version of them: its header, and what it finds, knows and is in tabs.
import { html, useState } from "../vendor/vendor.js";
import { call, request } from "./api.js";
import { Evidence } from "./evidence.js";
import { Fit } from "./fit.js";
import { ago, bytes, nats, number, percent, plural } from "./format.js";
import { Labels, SEARCH_HINT, searchOf, Tags } from "./labels.js";
import { save } from "./rows.js";
import { Monitoring } from "./monitoring.js";
import { Sample } from "./sample.js";
import { Score } from "./score.js";
import { Unusual } from "./unusual.js";
import { Badge, Verdict } from "./verdict.js";
import { familyOf, LATENT, PromoteForm, Promoted, usePromotion, Versions } from "./versions.js";
import { WhatIf } from "./whatif.js";
import { counted, Crumbs, Elsewhere, Loaded, More, origin, Parts, ProblemNote, useAction, useList, useLoaded } from "./widgets.js";

export function Models() {
  const [wanted, setWanted] = useState("");
  const loaded = useList(`/v1/models${searchOf(wanted)}`);
  return html`<h1>Models</h1><${Loaded} of=${loaded}>${({ items, total }) => {
    if (!items.length && !wanted) return html`<p class="empty">No model yet. <a href="#/datasets">Upload a dataset</a> and train one.</p>`;
    return html`<section class="card"><p class="row"><label for="find" class="hidden-text">${SEARCH_HINT}</label>
        <input id="find" type="search" placeholder=${SEARCH_HINT} value=${wanted} onInput=${(event) => setWanted(event.target.value)} />
        <span class="soft" role="status">${counted({ items, total }, "model")}</span></p>
      <div class="scroll" tabindex="0" role="region" aria-label="Models"><table>
        <thead><tr><th scope="col">Name</th><th scope="col" class="number">Newest version</th>
          <th scope="col">Verdict</th><th scope="col">Aliases</th><th scope="col">Tags</th>
          <th scope="col">Made</th></tr></thead>
        <tbody><${Parts} of=${items}>${(model) => html`<tr key=${model.name}><td><a href=${`#/models/${model.name}`}>${model.name}</a></td>
          <td class="number">${model.latest_version}</td>
          <td><${Badge} of=${model.latest} /></td>
            <td>${Object.entries(model.aliases).map(([alias, version]) => `${alias} is ${version}`).join(", ")}</td><td>
            <${Tags} tags=${model.tags} /></td><td>${ago(model.created_at)}</td></tr>`}<//></tbody></table></div>
            <${More} of=${loaded.more} total=${total} what="models" /></section>`;
  }}<//>`;
}

const TABS = [["unusual", "Unusual rows"], ["fit", "Fit"], ["monitoring", "Monitoring"], ["facts", "Facts"], ["versions", "Versions"]];
const TABS_OF_LATENT = [["fit", "Latent variables"], ...TABS.slice(3)];
const USES = [["score", "Score"], ["whatif", "What if"], ["sample", "Sample"]];
const USES_OF_LATENT = [["evidence", "Evidence of rows"], ["sample", "Posterior of a row"]];

export function Model({ name, version, tab, row }) {
  const loaded = useLoaded(async (signal) => {
    const versionOf = (number) => call(`/v1/models/${name}/versions/${number}`, { signal });
    if (version === undefined) {
      const model = await call(`/v1/models/${name}`, { signal });
      return { model, found: await versionOf(model.latest_version) };
    }
    const [model, found] = await Promise.all([call(`/v1/models/${name}`, { signal }), versionOf(version)]);
    return { model, found };
  }, [name, version]);
  return html`<${Crumbs} path=${[["Models", "#/models"]]} /><${Loaded} of=${loaded} title=${name}>${({ model, found }) =>
    html`<${Version} model=${model} found=${found} tab=${tab ?? (hasRows(found) ? "unusual" : "fit")} row=${row} again=${loaded.again} />`}<//>`;
}

/** True if a version was trained on rows that are stored. */
const hasRows = ({ family, lineage }) => family !== LATENT && Boolean(lineage.dataset_id);

function Version({ model, found, tab, row, again }) {
  const [promoting, setPromoting] = useState(false);
  const promotion = usePromotion(model, again);
  const { name, version, family } = found;
  const isLatent = family === LATENT;
  const ref = `${name}:${version}`;
  const to = (id) => ({ href: `#/models/${name}/${version}/${id}`, "aria-current": id === tab ? "page" : undefined });
  return html`<div class="head"><div><h1>${name} <span class="soft">version ${version}</span></h1>
        <p class="row"><${Badge} of=${found} />${found.aliases.map((alias) => html`<span key=${alias} class="state alias good">${alias}</span>`)}
          <span class="soft">${familyOf(found)}, ${isLatent ? `${found.columns.length} for ${plural(found.context_columns.length, "column")}` : plural(found.columns.length, "column")}, trained ${ago(found.created_at)}</span>
          ${model.latest_version > version && html`<a href=${`#/models/${name}/${model.latest_version}`}>Version ${model.latest_version} is newer</a>`}</p></div>
      <p class="row">${(isLatent ? USES_OF_LATENT : USES).map(([id, title]) => html`<a key=${id} class="button" ...${to(id)}>${title}</a>`)}
        <button type="button" aria-expanded=${promoting} onClick=${() => setPromoting(!promoting)}>Promote</button>
        <a class="button" href=${`#/models/${name}/compare${otherOf(model, version)}`}>Compare</a></p></div>
    ${promoting && html`<${PromoteForm} model=${model} version=${version} promotion=${promotion} close=${() => setPromoting(false)} />`}
    <${Promoted} of=${promotion} />
    <${Verdict} of=${found} />
    <nav class="tabs" aria-label="Of this version">${(isLatent ? TABS_OF_LATENT : TABS).map(([id, title]) => html`<a key=${id} ...${to(id)}>${title}</a>`)}</nav>
    ${tab === "unusual" && html`<${Unusual} version=${found} row=${row} />`}
    ${tab === "fit" && html`<${Fit} version=${found} />`}
    ${tab === "score" && html`<${Score} version=${found} reference=${ref} />`}
    ${tab === "whatif" && html`<${WhatIf} version=${found} reference=${ref} />`}
    ${tab === "evidence" && html`<${Evidence} version=${found} reference=${ref} />`}
    ${tab === "sample" && html`<${Sample} version=${found} reference=${ref} />`}
    ${tab === "monitoring" && html`<${Monitoring} version=${found} reference=${ref} />`}
    ${tab === "facts" && html`<${Facts} found=${found} again=${again} />`}
    ${tab === "versions" && html`<${Versions} model=${model} promotion=${promotion} again=${again} />`}`;
}

/** Return the versions of a comparison as a part of an address: this one beside the one in production, or the one before; all where there is none. */
function otherOf({ aliases, latest_version: latest }, version) {
  const other = [aliases.production, version - 1, latest].find((one) => one > 0 && one !== version);
  return other ? `/${other},${version}` : "";
}

function Facts({ found, again }) {
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
    ["Dataset", lineage.dataset_id && html`<a href=${`#/datasets/${lineage.dataset_id}`}>${lineage.dataset_id}</a>`],
    ["Job", lineage.job_id ? html`<a href=${`#/jobs/${lineage.job_id}`}>${lineage.job_id}</a>` : "none; it was imported"],
    ["Seed", lineage.seed],
    ["Weights", `${bytes(found.checkpoint.bytes)}, SHA-256 ${found.checkpoint.sha256}`],
    ["Made", new Date(found.created_at).toLocaleString()],
  ].filter(([, value]) => value !== null && value !== undefined && value !== "");
  return html`<${Labels} what="version" path=${`/v1/models/${found.name}/versions/${found.version}`} of=${found} again=${again} />
    <section class="card"><h2>Facts</h2><dl class="facts">${facts.map(([name, value]) => html`<dt key=${name}>${name}</dt><dd>${value}</dd>`)}</dl>
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
