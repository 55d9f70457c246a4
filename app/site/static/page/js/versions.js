// Versions of a model: promoted, compared, deleted; what was promoted when, and why.
import { html, useState } from "../vendor/vendor.js";
import { all, call, first } from "./api.js";
import { ago, familyName, number, plural } from "./format.js";
import { Labels } from "./labels.js";
import { Badge } from "./verdict.js";
import { Confirm, Elsewhere, Field, Loaded, More, origin, Parts, ProblemNote, useAction, useLoaded, useMore } from "./widgets.js";

/** Move the aliases of a model: {move(alias, version, reason), busy, problem, undo, done}; a version of null deletes the alias. */
export function usePromotion(model, again) {
  const [done, setDone] = useState(null);
  const path = (alias) => `/v1/models/${model.name}/aliases/${alias}`;
  const send = useAction(async (alias, version, reason) => {
    if (version === null) await call(path(alias), { method: "DELETE" });
    else await call(path(alias), { method: "PUT", json: { version, ...(reason && { reason }) } });
    setDone({ alias, before: model.aliases[alias] ?? null, now: version });
    again();
    return true;
  });
  const undo = async () => {
    if (await send.run(done.alias, done.before, done.before === null ? "" : "undone")) setDone(null);
  };
  return { move: send.run, busy: send.busy, problem: send.problem, done, undo };
}

/** What was promoted just now, with its undoing. */
export const Promoted = ({ of: { done, undo, busy, problem } }) => html`<${ProblemNote} problem=${problem} />
  ${done && html`<p class="note good row" role="status">${done.now === null ? `The alias ${done.alias} was removed.` : `${done.alias} is now version ${done.now}${done.before === null ? "" : `; it was version ${done.before}`}.`}
    <button type="button" disabled=${busy} onClick=${undo}>Undo</button></p>`}`;

/** Form that promotes a version. */
export function PromoteForm({ model, version, promotion, close }) {
  const [values, setValues] = useState({ alias: "production", reason: "" });
  const change = (name) => (event) => setValues({ ...values, [name]: event.target.value });
  const before = model.aliases[values.alias];
  const send = async (event) => {
    event.preventDefault();
    if (await promotion.move(values.alias, version, values.reason.trim())) close();
  };
  return html`<form class="card promote" aria-label=${`Promote version ${version}`} onSubmit=${send} onKeyDown=${(event) => event.key === "Escape" && close()}>
    <p class="hint">Requests for ${model.name} are answered by its version in production, or by the newest while there is none. ${before === undefined ? "" : `${values.alias} is version ${before} now.`}</p>
    <div class="row"><label for="reason">Reason</label>
      <input id="reason" type="text" maxlength="500" placeholder="optional; stays in the history" value=${values.reason} onInput=${change("reason")} ref=${focusFirst} />
      <label for="alias">Alias</label>
      <input id="alias" required size="14" pattern="[a-z0-9][a-z0-9._\\-]{0,63}" value=${values.alias} onInput=${change("alias")} />
      <button class="first" disabled=${promotion.busy}>Promote version ${version}</button>
      <button type="button" onClick=${close}>Cancel</button></div></form>`;
}

/** Give an element the focus when it appears. */
const focusFirst = (element) => element && !element.form.contains(document.activeElement) && element.focus();

/** Return the kind of a version in words. */
export function familyOf({ family, flow }) {
  if (family === "mixed") return `mixed table with ${flow.flow ? familyName(flow.flow.family) : "categories alone"}`;
  if (family === LATENT) return `latent variables, posterior by ${familyName(flow.flow.family)}`;
  return familyName(family);
}

export const LATENT = "latent"; // family of a posterior of latent variables beside the model of the rows that they explain

export function Versions({ model, promotion, again }) {
  const loaded = useLoaded((signal) => all(`/v1/models/${model.name}/versions?include=flow`, { signal }), [model.name, JSON.stringify(model.aliases)]);
  const [chosen, setChosen] = useState([]);
  const [promoting, setPromoting] = useState(null);
  const remove = useAction(async (version) => { await call(`/v1/models/${model.name}/versions/${version}`, { method: "DELETE" }); loaded.again(); again(); });
  const more = useMore(200);
  const toggle = (version) => setChosen(chosen.includes(version) ? chosen.filter((one) => one !== version) : [...chosen, version]);
  const close = () => setPromoting(null);
  const line = (one) => html`<tr key=${one.version}>
    <td><input type="checkbox" aria-label=${`Compare version ${one.version}`} checked=${chosen.includes(one.version)} onChange=${() => toggle(one.version)} /></td>
    <td><a href=${`#/models/${model.name}/${one.version}`}>${one.version}</a></td><td><${Badge} of=${one} /></td><td>${familyOf(one)}</td>
    <td>${one.aliases.map((alias) => html`<span key=${alias} class="row"><span class="state alias good">${alias}</span>
      <button type="button" class="quiet" aria-label=${`Remove the alias ${alias}`} disabled=${promotion.busy} onClick=${() => promotion.move(alias, null)}>Remove</button></span>`)}</td>
    <td class="number">${number(one.parameters)}</td><td>${ago(one.created_at)}</td>
    <td><span class="row"><button type="button" class="small" aria-label=${`Promote version ${one.version}`} aria-expanded=${promoting === one.version} onClick=${() => setPromoting(promoting === one.version ? null : one.version)}>Promote</button>
      <${Confirm} kind="small" label="Delete" question=${`Delete version ${one.version} for good?`} busy=${remove.busy} act=${() => remove.run(one.version)} /></span></td></tr>
    ${promoting === one.version && html`<tr key="form"><td colspan="8"><${PromoteForm} model=${model} version=${one.version} promotion=${promotion} close=${close} /></td></tr>`}`;
  return html`<${ProblemNote} problem=${remove.problem} />
    <${Labels} what="model" path=${`/v1/models/${model.name}`} of=${model} again=${again} />
    <${Loaded} of=${loaded}>${(versions) => html`<section class="card"><div class="head"><h2>Versions</h2>
        <a class="button" href=${`#/models/${model.name}/compare${chosen.length > 1 ? `/${chosen.join(",")}` : ""}`}>Compare ${chosen.length > 1 ? chosen.length : "all"}</a></div>
      <div class="scroll stacked" tabindex="0" role="region" aria-label="Versions"><table>
        <thead><tr><th scope="col"><span class="hidden-text">Chosen</span></th><th scope="col">Version</th><th scope="col">Verdict</th><th scope="col">Kind</th>
          <th scope="col">Aliases</th><th scope="col" class="number">Parameters</th>
          <th scope="col">Trained</th><th scope="col"><span class="hidden-text">Actions</span></th></tr></thead>
        <tbody><${Parts} of=${versions.slice(0, more.shown)}>${line}<//></tbody></table></div>
      <${More} of=${more} total=${versions.length} what="versions" />
      <${History} model=${model} round=${promotion.done} /></section>`}<//>
    <${Elsewhere} curl=${`curl -s -X PUT ${origin}/v1/models/${model.name}/aliases/production \\\n  -H 'Content-Type: application/json' -d '{"version": ${model.latest_version}}'`}
      python=${`from densityd.client import Client\n\nwith Client("${origin}") as client:\n    client.models.set_alias("${model.name}", "production", ${model.latest_version})`} shell=${`densityd alias ${model.name} production ${model.latest_version}`} />`;
}

/** Which version each alias meant from when on, and why. */
function History({ model, round }) {
  const loaded = useLoaded((signal) => first(`/v1/models/${model.name}/history`, 200, { signal }), [model.name, JSON.stringify(model.aliases), round]);
  return html`<${Loaded} of=${loaded}>${({ items, isWhole }) => items.length > 0 && html`<details><summary>History of promotions</summary>
    <div class="scroll" tabindex="0" role="region" aria-label="History of promotions"><table>
      <thead><tr><th scope="col">Alias</th><th scope="col">Version</th><th scope="col">Because</th><th scope="col">When</th></tr></thead>
      <tbody>${items.map((change, at) => html`<tr key=${at}><td>${change.alias}</td><td>${change.version ?? "deleted"}</td>
        <td>${change.reason ?? ""}</td><td>${new Date(change.created_at).toLocaleString()}</td></tr>`)}</tbody></table></div>
    ${!isWhole && html`<p class="hint">The newest ${plural(items.length, "change")}; <code>densityd alias ${model.name}</code> lists all.</p>`}</details>`}<//>`;
}
