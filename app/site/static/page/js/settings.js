// The key of this tab, the theme, and how the service is.
import { html } from "../vendor/vendor.js";
import { Keys, Usage } from "./account.js";
import { apiKey, setKey } from "./api.js";
import { Field, Loaded, useJson, useLoaded } from "./widgets.js";

export function Settings({ theme, setTheme }) {
  const version = useJson("/v1/version");
  const ready = useLoaded(async (signal) => (await fetch("readyz", { signal })).json(), []);
  const send = (event) => {
    event.preventDefault();
    setKey(new FormData(event.target).get("key"));
  };
  return html`<h1>Settings</h1>
    <form class="card" onSubmit=${send}><h2>Key</h2>
      <${Field} id="own-key" label="API key" hint="It stays in this tab, until the tab is closed. Empty: none is sent.">
        <input id="own-key" name="key" type="password" autocomplete="off" value=${apiKey.value} aria-describedby="own-key-hint" /><//>
      <p class="row"><button class="first">Keep</button>${apiKey.value && html`<button type="button" onClick=${() => setKey("")}>Forget it</button>`}</p></form>
    <section class="card"><h2>Appearance</h2><${Field} id="theme" label="Theme">
      <select id="theme" value=${theme.value} onChange=${(event) => setTheme(event.target.value)}><option value="system">As the system</option>
      <option value="light">Light</option><option value="dark">Dark</option></select><//></section>
    <${Usage} /><${Keys} />
    <section class="card"><h2>The service</h2><${Loaded} of=${ready}>${({ status, checks }) => html`<p>
      <span class=${`state ${status === "ok" ? "good" : "failed"}`}>${status}</span></p>
      <dl class="facts"><dt>version</dt><dd>densityd ${version.value?.version}</dd>${Object.entries(checks).map(([name, { ok, detail }]) => html`<dt key=${name}>${name}</dt><dd>${ok ? "fine" : detail}</dd>`)}</dl>`}<//>
      <p>
        <a href="guide/">Guide</a>, <a href="docs">Swagger UI</a>, <a href="problems">problems explained</a>, <a href="openapi.json">OpenAPI document</a>, <a href="metrics">metrics</a></p></section>`;
}
