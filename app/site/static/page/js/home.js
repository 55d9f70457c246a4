// The first view: send a table, or try an example; what runs and what is there.
import { html } from "../vendor/vendor.js";
import { call } from "./api.js";
import { ago, percent, plural } from "./format.js";
import { Drop } from "./uploading.js";
import { Loaded, ProblemNote, State, useAction, useEvery, useLoaded } from "./widgets.js";

async function trainExample() {
  const table = await (await fetch("static/page/penguins.csv")).text();
  const dataset = await call("/v1/datasets?name=penguins", { method: "POST", body: table, headers: { "Content-Type": "text/csv" } });
  const job = await call("/v1/jobs/training", { method: "POST", json: { model_name: "penguins", dataset_id: dataset.id, missing: "any" } });
  window.location.hash = `#/jobs/${job.id}`;
}

export function Home() {
  const example = useAction(trainExample);
  const loaded = useLoaded(async (signal) => {
    const [jobs, models] = await Promise.all([call("/v1/jobs?limit=5", { signal }), call("/v1/models?limit=6", { signal })]);
    return { jobs: jobs.items, models: models.items };
  }, []);
  useEvery(3, !loaded.loading, loaded.again);
  return html`
    <h1>How likely is a row of your table?</h1>
    <p class="soft">Send a table and train a model on it. The model then gives the exact probability density of any row, says which value makes a row unlikely, and draws new rows.</p>
    <${Drop} />
    <p class="row"><button type="button" disabled=${example.busy} onClick=${example.run}>${example.busy ? "Starting…" : "Try it with an example"}</button>
      <span class="soft">344 penguins of three species, with missing values: trained in some seconds</span></p>
    <${ProblemNote} problem=${example.problem} />
    <${Loaded} of=${loaded}>${({ jobs, models }) => html`<div class="halves">
      <section class="card"><h2>Latest jobs</h2>${jobs.length ? html`<table><tbody>${jobs.map((job) => html`<tr key=${job.id}>
          <td><a href=${`#/jobs/${job.id}`}>${job.model.name ?? job.kind}</a><br /><span class="soft">${job.kind}, ${ago(job.created_at)}</span></td>
          <td class="number"><${State} of=${job.state} /><br />
            <span class="soft">${job.state === "running" && job.progress ? percent(job.progress.fraction) : ""}</span></td>
        </tr>`)}</tbody></table>` : html`<p class="empty">No job yet. A job trains a model or scores a table.</p>`}</section>
      <section class="card"><h2>Newest models</h2>${models.length ? html`<table><tbody>${models.map((model) => html`<tr key=${model.name}>
          <td><a href=${`#/models/${model.name}`}>${model.name}</a><br /><span class="soft">${ago(model.created_at)}</span></td>
          <td class="number">version ${model.latest_version}<br />
            <span class="soft">${Object.keys(model.aliases).length ? plural(Object.keys(model.aliases).length, "alias", "aliases") : ""}</span></td>
        </tr>`)}</tbody></table>` : html`<p class="empty">No model yet. Send a table above, then train.</p>`}</section>
    </div>`}<//>`;
}
