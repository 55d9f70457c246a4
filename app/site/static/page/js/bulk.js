// Jobs over whole tables: all rows of a dataset scored or filled into a file, many rows drawn into a file.
import { html, useState } from "../vendor/vendor.js";
import { call, first } from "./api.js";
import { Elsewhere, Field, Loaded, origin, ProblemNote, useAction, useLoaded } from "./widgets.js";

const OUTPUTS = ["csv", "parquet", "npy"];

async function start(kind, json) {
  const job = await call(`/v1/jobs/${kind}`, { method: "POST", json, headers: { "Idempotency-Key": crypto.randomUUID() } });
  window.location.hash = `#/jobs/${job.id}`;
}

const python = (call, file) => `from densityd.client import Client\n\nwith Client("${origin}") as client:\n    job = client.jobs.${call}\n    client.jobs.wait(job.id)\n    client.jobs.download(job.id, "${file}")`;

const Output = ({ value, set }) => html`<${Field} id="output" label="File">
  <select id="output" value=${value} onChange=${(event) => set(event.target.value)}>${OUTPUTS.map((name) => html`<option key=${name}>${name}</option>`)}</select><//>`;

/** Score a dataset with a model; one of both is given, the other chosen. */
export function ScoreTable({ reference, dataset }) {
  const loaded = useLoaded(async (signal) => first(reference ? "/v1/datasets" : "/v1/models", 1000, { signal }), []);
  const [chosen, setChosen] = useState("");
  const [output, setOutput] = useState("csv");
  const [include, setInclude] = useState(true);
  const request = { model: reference ?? chosen, dataset_id: dataset ?? chosen, output, include_rows: include };
  const scoring = useAction(() => start("scoring", request));
  return html`<${Loaded} of=${loaded}>${({ items, isWhole }) => items.length > 0 && html`<form class="card" onSubmit=${(event) => { event.preventDefault(); scoring.run(); }}>
      <h2>${reference ? "Score a whole dataset" : "Score all rows with a model"}</h2>
        <p class="hint">A job writes a file with the log density and the rank of each row; any number of rows.</p>
      <div class="fields"><${Field} id="chosen" label=${reference ? "Dataset" : "Model"} hint=${isWhole ? "" : "The newest 1,000."}>
        <select id="chosen" required value=${chosen} onChange=${(event) => setChosen(event.target.value)}><option value="">Choose one</option>
          ${items.map((item) => html`<option key=${item.id ?? item.name} value=${item.id ?? item.name}>${item.name ?? item.id}</option>`)}</select><//>
        <${Output} value=${output} set=${setOutput} /></div>
      <p class="row"><label><input type="checkbox" checked=${include} onChange=${() => setInclude(!include)} /> With the columns of the data</label></p>
      <button disabled=${scoring.busy}>Start scoring</button><${ProblemNote} problem=${scoring.problem} />
      <${Elsewhere} curl=${`curl -s ${origin}/v1/jobs/scoring -H 'Content-Type: application/json' \\\n  -d '${JSON.stringify(request)}'`}
        python=${python(`score("${request.model}", "${request.dataset_id}", output="${output}"${include ? ", include_rows=True" : ""})`, `scores.${output}`)}
        shell=${`densityd score ${request.model} --dataset ${request.dataset_id}${include ? " --include-rows" : ""} -o scores.${output}`} /></form>`}<//>`;
}

/** Fill the gaps of a dataset. */
export function ImputeTable({ reference }) {
  const loaded = useLoaded(async (signal) => first("/v1/datasets", 1000, { signal }), []);
  const [values, setValues] = useState({ dataset_id: "", output: "csv", fill: "mean" });
  const request = { model: reference, ...values };
  const filling = useAction(() => start("imputation", request));
  const set = (name) => (value) => setValues({ ...values, [name]: value });
  return html`<${Loaded} of=${loaded}>${({ items, isWhole }) => items.length > 0 && html`<form class="card" onSubmit=${(event) => { event.preventDefault(); filling.run(); }}>
      <h2>Fill the gaps of a whole dataset</h2>
      <p class="hint">A job writes a file with all columns of the dataset; each gap is filled given the other cells of its row.</p>
      <div class="fields"><${Field} id="gaps" label="Dataset" hint=${isWhole ? "" : "The newest 1,000."}>
          <select id="gaps" required value=${values.dataset_id} onChange=${(event) => set("dataset_id")(event.target.value)}><option value="">Choose one</option>
            ${items.map((item) => html`<option key=${item.id} value=${item.id}>${item.name ?? item.id}</option>`)}</select><//>
        <${Field} id="fill" label="A number gets"><select id="fill" value=${values.fill} onChange=${(event) => set("fill")(event.target.value)}>
          <option value="mean">its mean</option><option value="median">its median</option><option value="draw">a draw, for multiple imputation</option></select><//>
        <${Output} value=${values.output} set=${set("output")} /></div>
      <button disabled=${filling.busy}>Start filling</button><${ProblemNote} problem=${filling.problem} />
      <${Elsewhere} curl=${`curl -s ${origin}/v1/jobs/imputation -H 'Content-Type: application/json' \\\n  -d '${JSON.stringify(request)}'`}
        python=${python(`impute("${reference}", "${values.dataset_id}", fill="${values.fill}", output="${values.output}")`, `filled.${values.output}`)} /></form>`}<//>`;
}

/** Draw many rows into a file. */
export function SampleTable({ reference }) {
  const [n, setN] = useState("1000000");
  const [output, setOutput] = useState("parquet");
  const request = { model: reference, n: Number(n), output };
  const sampling = useAction(() => start("sampling", request));
  return html`<form class="card" onSubmit=${(event) => { event.preventDefault(); sampling.run(); }}><h2>Draw many rows into a file</h2>
    <div class="fields"><${Field} id="many" label="Rows of the file">
      <input id="many" type="number" min="1" required value=${n} onInput=${(event) => setN(event.target.value)} /><//>
      <${Output} value=${output} set=${setOutput} /></div>
    <button disabled=${sampling.busy}>Start drawing</button><${ProblemNote} problem=${sampling.problem} />
    <${Elsewhere} curl=${`curl -s ${origin}/v1/jobs/sampling -H 'Content-Type: application/json' \\\n  -d '${JSON.stringify(request)}'`}
      python=${python(`sample("${reference}", ${n}, output="${output}")`, `samples.${output}`)}
      shell=${`densityd sample ${reference} -n ${n} --job -o samples.${output}`} /></form>`;
}
