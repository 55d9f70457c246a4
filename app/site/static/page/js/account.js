// What the caller may and has used, and the keys of the project, for its admins.
import { html, useState } from "../vendor/vendor.js";
import { call } from "./api.js";
import { ago, bytes, number } from "./format.js";
import { Confirm, Elsewhere, Loaded, origin, ProblemNote, useAction, useJson } from "./widgets.js";

export function Usage() {
  const loaded = useJson("/v1/usage");
  return html`<section class="card"><h2>Usage</h2>
    <${Loaded} of=${loaded}>${({ project, stored_bytes: stored, queued_jobs: queued, computed_rows: rows, ...counts }) => html`
      <dl class="facts"><dt>Project</dt><dd>${project}</dd>
        <dt>Stored</dt><dd><${Meter} name="Stored" used=${stored.used} limit=${stored.limit} as=${bytes} /></dd>
        <dt>Waiting jobs</dt><dd><${Meter} name="Waiting jobs" used=${queued.used} limit=${queued.limit} as=${number} /></dd>
        <dt>Datasets, models, versions</dt><dd>${number(counts.datasets)}, ${number(counts.models)}, ${number(counts.versions)}</dd>
        <dt>Rows computed by requests</dt><dd>${number(rows.today)} today, ${number(rows.last_30_days)} in 30 days</dd></dl>
      <${Elsewhere} curl=${`curl -s ${origin}/v1/usage`} shell="densityd call GET /v1/usage" />`}<//></section>`;
}

const Meter = ({ name, used, limit, as }) => html`${as(used)}${limit !== null && html` of ${as(limit)}<br />
  <meter aria-label=${name} min="0" max=${limit} high=${0.9 * limit} value=${used}></meter>`}`;

export function Keys() {
  const me = useJson("/v1/me");
  return html`<${Loaded} of=${me}>${({ scope, key, person }) => scope === "admin" && html`<section class="card"><h2>Keys of this project</h2>
    ${key === null && person === null ? html`<p>This service has no keys: everybody who reaches it may do everything. Its administrator makes the first one on its machine, with <code>densityd keys create</code>.</p>` : html`<${KeyList} />`}</section>`}<//>`;
}

const GRACE_S = 86400; // in which a key that was replaced still works

/** Return the day of an end, with the time of one within a day or two. */
const ends = (time) => (new Date(time) - Date.now() < 2 * 86400e3 ? new Date(time).toLocaleString() : new Date(time).toLocaleDateString());

function KeyList() {
  const loaded = useJson("/v1/keys");
  const [made, setMade] = useState(null);
  const [values, setValues] = useState({ label: "", scope: "read", days: "90" });
  const change = (name) => (event) => setValues({ ...values, [name]: event.target.value });
  const create = useAction(async () => {
    const json = { scope: values.scope, ...(values.label && { label: values.label }), ...(values.days && { expires_days: Number(values.days) }) };
    setMade(await call("/v1/keys", { method: "POST", json }));
    loaded.again();
  });
  const rotate = useAction(async (id) => { setMade({ ...(await call(`/v1/keys/${id}/rotate`, { method: "POST", json: { grace_s: GRACE_S } })), replaces: true }); loaded.again(); });
  const revoke = useAction(async (id) => { await call(`/v1/keys/${id}`, { method: "DELETE" }); loaded.again(); });
  return html`${made && html`<div class="note" role="status"><strong>The new key, which is shown this once</strong>
    <pre tabindex="0" role="group" aria-label="New key">${made.token}</pre>
      ${made.replaces && html`<p>The key that it replaces still works for a day; revoke it to end it now.</p>`}</div>`}
    <form class="row" onSubmit=${(event) => { event.preventDefault(); create.run(); }}>
      <label for="label">For</label><input id="label" placeholder="nightly scores" maxlength="100" value=${values.label} onInput=${change("label")} />
      <label for="scope">it may</label>
        <select id="scope" value=${values.scope} onChange=${change("scope")}>${["read", "write", "admin"].map((scope) => html`<option key=${scope}>${scope}</option>`)}</select>
      <label for="days">for days</label><input id="days" type="number" min="1" value=${values.days} onInput=${change("days")} />
        <button disabled=${create.busy}>Make a key</button></form>
    <${ProblemNote} problem=${create.problem ?? rotate.problem ?? revoke.problem} />
    <${Loaded} of=${loaded}>${({ items }) => html`<div class="scroll" tabindex="0" role="region" aria-label="Keys"><table>
      <thead><tr><th scope="col">For</th><th scope="col">May</th><th scope="col">Made</th><th scope="col">Ends</th><th scope="col">Last used</th>
        <th scope="col"><span class="hidden-text">Actions</span></th></tr></thead>
      <tbody>${items.map((key) => html`<tr key=${key.id}><td>${key.label || key.id}</td><td>${key.scope}</td><td>${ago(key.created_at)}</td>
        <td>${key.state !== "usable" ? key.state : key.expires_at ? ends(key.expires_at) : "never"}</td>
          <td>${key.last_used_at ? ago(key.last_used_at) : "never"}</td>
        <td>${key.state === "usable" && html`<span class="row">
          <button type="button" disabled=${rotate.busy} onClick=${() => rotate.run(key.id)}>Replace</button>
          <${Confirm} label="Revoke" question="Revoke this key?" busy=${revoke.busy} act=${() => revoke.run(key.id)} /></span>`}</td></tr>`)}</tbody></table></div>`}<//>`;
}
