// The list of jobs.
import { html, useState } from "../vendor/vendor.js";
import { ago, nats, number, percent, seconds } from "./format.js";
import { Loaded, More, Parts, State, useEvery, useList } from "./widgets.js";

const STATES = ["", "queued", "running", "succeeded", "failed", "cancelled"];

/** Return what a job has reached, in few words. */
function reached(job) {
  if (job.error) return job.error.detail;
  if (job.state === "running" && job.progress) return `${percent(job.progress.fraction)}, ${seconds(job.progress.eta_seconds)} left`;
  const found = job.metrics ?? {};
  if (job.kind === "training" && job.model.version) return `version ${job.model.version}`;
  if (found.best_robust_validation_log_likelihood !== undefined) return `validation log likelihood ${nats(found.best_robust_validation_log_likelihood)}`;
  if (found.elbo !== undefined) return `ELBO ${nats(found.elbo)}`;
  if (found.rows !== undefined) return `${number(found.rows)} rows`;
  return "";
}

export function Jobs() {
  const [state, setState] = useState("");
  const loaded = useList(`/v1/jobs${state && `?state=${state}`}`);
  useEvery(3, !loaded.loading && (loaded.value?.items ?? []).some((job) => job.state === "running" || job.state === "queued"), loaded.again);
  return html`<h1>Jobs</h1>
    <p class="row"><label for="state">State</label>
      <select id="state" value=${state} onChange=${(event) => setState(event.target.value)}>${STATES.map((name) => html`<option key=${name} value=${name}>${name || "all"}</option>`)}</select></p>
    <${Loaded} of=${loaded}>${({ items, total }) => (items.length === 0 ? html`<p class="empty">No such job. Upload a dataset and train a model on it.</p>` : html`<section class="card">
      <div class="scroll" tabindex="0" role="region" aria-label="Jobs"><table>
        <thead><tr><th scope="col">Job</th><th scope="col">Kind</th><th scope="col">State</th><th scope="col">Reached</th><th scope="col">Sent</th></tr></thead>
        <tbody><${Parts} of=${items}>${(job) => html`<tr key=${job.id}><td><a href=${`#/jobs/${job.id}`}>${job.model.name ?? job.id}</a></td><td>${job.kind}</td>
          <td><${State} of=${job.state} /></td><td>${reached(job)}</td><td>${ago(job.created_at)}</td></tr>`}<//></tbody>
      </table></div><${More} of=${loaded.more} total=${total} what="jobs" /></section>`)}<//>
    <details><summary>Advanced</summary><p><a href="#/jobs/variational">Fit a flow to a density</a> that is known up to a constant, by a formula or as a posterior (variational inference).</p></details>`;
}
