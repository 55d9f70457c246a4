// The first view: send a table, or try an example; what the result looks like, or what runs and is there.
import { html } from "../vendor/vendor.js";
import { call } from "./api.js";
import { ago, percent } from "./format.js";
import { Drop } from "./uploading.js";
import { Badge } from "./verdict.js";
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
    <h1>Which rows of your table are unusual, and why?</h1>
    <p class="soft">Drop a table and train a model on it. The model gives the exact probability density of any row, says which values make a row unlikely, and draws new rows.</p>
    <${Drop} />
    <p class="row"><button type="button" disabled=${example.busy} onClick=${example.run}>${example.busy ? "Starting…" : "Try it with an example"}</button>
      <span class="soft">344 penguins of three species, with missing values: trained in some seconds</span></p>
    <${ProblemNote} problem=${example.problem} />
    <${Loaded} of=${loaded}>${({ jobs, models }) => (jobs.length || models.length ? html`<div class="halves">
      <section class="card"><h2>Newest models</h2>${models.length ? html`<table><tbody>${models.map((model) => html`<tr key=${model.name}>
          <td><a href=${`#/models/${model.name}`}>${model.name}</a><br /><span class="soft">${ago(model.created_at)}</span></td>
          <td class="number">version ${model.latest_version}<br />
            ${Object.keys(model.aliases).map((alias) => html`<span key=${alias} class="soft">${alias} is ${model.aliases[alias]} </span>`)}<${Badge} of=${model.latest} /></td>
        </tr>`)}</tbody></table>` : html`<p class="empty">No model yet. Drop a table above, then train.</p>`}</section>
      <section class="card"><h2>Latest jobs</h2>${jobs.length ? html`<table><tbody>${jobs.map((job) => html`<tr key=${job.id}>
          <td><a href=${`#/jobs/${job.id}`}>${job.model.name ?? job.kind}</a><br /><span class="soft">${job.kind}, ${ago(job.created_at)}</span></td>
          <td class="number"><${State} of=${job.state} /><br />
            <span class="soft">${job.state === "running" && job.progress ? percent(job.progress.fraction) : ""}</span></td>
        </tr>`)}</tbody></table>` : html`<p class="empty">No job yet. A job trains a model or scores a dataset.</p>`}</section>
    </div>` : html`<${Picture} />`)}<//>`;
}

const PENGUIN = [["species", "Chinstrap"], ["bill_length_mm", "46.9"], ["flipper_length_mm", "192"], ["body_mass_g", "2700"], ["sex", "female"]];
const ODD = "body_mass_g";

/** What the result looks like: a row of the example. */
const Picture = () => html`<section class="card" aria-label="What you get"><h2>What you get: each unusual row, with the reason</h2>
  <div class="scroll unusual" tabindex="0" role="region" aria-label="An unusual row of the example"><table>
    <thead><tr><th scope="col" class="number">Row</th><th scope="col">Reasons</th>${PENGUIN.map(([name]) => html`<th key=${name} scope="col">${name}</th>`)}</tr></thead>
    <tbody><tr><td class="number">315</td><td class="reasons"><span class="reason">body_mass_g 2700: usual here 3187 to 3989</span></td>
      ${PENGUIN.map(([name, value]) => html`<td key=${name} class=${name === ODD ? "odd" : ""}>${value}</td>`)}</tr></tbody></table></div>
  <p class="hint">A penguin of the example: with such a bill and such flippers, a female Chinstrap weighs 3.2 to 4 kg.</p></section>`;
