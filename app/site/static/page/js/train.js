// The start of a training: a name is enough; each other option says what it does.
import { html, useEffect, useState } from "../vendor/vendor.js";
import { call } from "./api.js";
import { plural, seconds } from "./format.js";
import { quoted } from "./rows.js";
import { Crumbs, Elsewhere, Field, Loaded, More, origin, ProblemNote, useAction, useJson, useMore } from "./widgets.js";

const KINDS = [
  ["", "Default", "Chosen from the data: right for most tables."],
  ["auto", "Search", "Tries several kinds and sizes, and keeps the best or a mean of the best few. Takes several times as long."],
  ["gaussian_mixture", "Gaussian mixture", "Smooth, with exact reasons for unusual values; misses sharp edges, and takes several times as long."],
];

const FAMILIES = [
  ["maf", "MAF", "Masked autoregressive flow: fast to score and to train."],
  ["nsf", "NSF", "Neural spline flow: the most flexible; slower."],
  ["realnvp", "Real NVP", "Coupling layers: as fast to sample as to score."],
  ["naf", "NAF", "Neural autoregressive flow: flexible in few columns; samples slowly."],
  ["haf", "HAF", "Hybrid autoregressive flow."],
  ["made", "MADE", "One autoregressive network without layers: small and fast."],
  ["gaussian", "Gaussian", "A normal distribution, to compare with."],
];

const QUALITIES = [
  ["fast", "Fast", "A quarter of the usual time: a first look."],
  ["balanced", "Balanced", "The usual time, seconds to minutes for a table of some thousand rows."],
  ["best", "Best", "Four times the usual time, and more patience."],
];

export const nameOf = (text) => (text ?? "").toLowerCase().replace(/[^a-z0-9._-]+/g, "-").replace(/^[^a-z0-9]+|[^a-z0-9]+$/g, "").slice(0, 64) || "model";

const ROLES = [["model", "modelled"], ["given", "given"], ["out", "left out"]];

/** Return the request of a training from the form's values, without what is left to the service. */
function requestOf(values, dataset) {
  const optimisation = {};
  if (values.minutes) optimisation.max_seconds = Math.round(60 * Number(values.minutes));
  if (values.epochs) optimisation.max_epochs = Number(values.epochs);
  if (values.rate) optimisation.learning_rate = Number(values.rate);
  const of = (role) => Object.keys(values.roles).filter((name) => values.roles[name] === role);
  const [modelled, given] = [of("model"), of("given")];
  return {
    model_name: values.name,
    dataset_id: dataset,
    ...(modelled.length < Object.keys(values.roles).length && { columns: modelled }),
    ...(given.length && { context_columns: given }),
    ...(values.quality !== "balanced" && { quality: values.quality }),
    ...(values.family && { flow: values.family === "auto" ? "auto" : { family: values.family } }),
    ...(values.gaps && { missing: "any" }),
    ...(Object.keys(optimisation).length && { optimisation }),
  };
}

/** Return the call of the Python client that sends a request. */
function pythonOf({ model_name: name, dataset_id: dataset, ...options }) {
  const given = Object.entries(options).map(([option, value]) => `, ${option}=${JSON.stringify(value)}`).join("");
  return `from densityd.client import Client\n\nwith Client("${origin}") as client:\n    job = client.jobs.train("${name}", "${dataset}"${given})\n    print(client.jobs.wait(job.id).ref)`;
}

/** Return the command that sends a request. */
function commandOf({ model_name: name, dataset_id: dataset, columns = [], context_columns: given = [], quality, flow, missing, optimisation = {} }) {
  const { max_seconds: most, ...fields } = optimisation;
  return [
    `densityd train --dataset ${dataset} --model ${name}`,
    ...(quality ? [`--quality ${quality}`] : []),
    ...(flow ? [`--flow ${flow.family ?? flow}`] : []),
    ...(missing ? [`--missing ${missing}`] : []),
    ...(most ? [`--max-seconds ${most}`] : []),
    ...Object.entries(fields).map(([field, value]) => `--set optimisation.${field}=${value}`),
    ...columns.map((column) => `--column ${quoted(column)}`),
    ...given.map((column) => `--context-column ${quoted(column)}`),
  ].join(" ");
}

/** About how long a training takes, a moment after the last change. */
function Estimate({ request }) {
  const { model_name: _, ...rest } = request;
  const wanted = JSON.stringify(rest);
  const [found, setFound] = useState(null);
  useEffect(() => {
    const stop = new AbortController();
    const timer = setTimeout(() => call("/v1/jobs/training/estimate", { method: "POST", json: { ...rest, model_name: "model" }, signal: stop.signal }).then(setFound, () => stop.signal.aborted || setFound(null)), 300);
    return () => { clearTimeout(timer); stop.abort(); };
  }, [wanted]);
  return html`<p class="soft" role="status">${found && `Takes about ${seconds(found.seconds)}${found.queued ? `, after ${plural(found.queued, "job")} that ${found.queued === 1 ? "waits" : "wait"}` : ""}.`}</p>`;
}

export function Train({ id }) {
  const loaded = useJson(`/v1/datasets/${id}`);
  return html`<${Crumbs} path=${[["Datasets", "#/datasets"], ["Dataset", `#/datasets/${id}`]]} />
    <${Loaded} of=${loaded}>${(dataset) => html`<${Form} dataset=${dataset} />`}<//>`;
}

function Form({ dataset }) {
  const known = dataset.columns.filter(({ type }) => type !== "ignored").map(({ name }) => name);
  const [values, setValues] = useState({ name: nameOf(dataset.name), family: "", quality: "balanced", gaps: true, minutes: "", epochs: "", rate: "", roles: Object.fromEntries(known.map((name) => [name, "model"])) });
  const more = useMore(120);
  const some = Object.values(values.roles).includes("model");
  const change = (name) => (event) => setValues({ ...values, [name]: event.target.type === "checkbox" ? event.target.checked : event.target.value });
  const request = requestOf(values, dataset.id);
  const start = useAction(async () => {
    const job = await call("/v1/jobs/training", { method: "POST", json: request, headers: { "Idempotency-Key": crypto.randomUUID() } });
    window.location.hash = `#/jobs/${job.id}`;
  });
  const setRole = (name) => (event) => setValues({ ...values, roles: { ...values.roles, [name]: event.target.value } });
  const family = FAMILIES.find(([one]) => one === values.family);
  return html`<h1>Train a model</h1>
    <p class="soft">On ${dataset.name ?? dataset.id}. A name is enough; everything else is chosen from the data.</p>
    <form class="card" onSubmit=${(event) => { event.preventDefault(); start.run(); }}>
      <${Field} id="name" label="Name of the model" hint="Small letters, digits, dot, dash and underscore. A known name gets a new version.">
        <input id="name" type="text" required pattern="[a-z0-9][a-z0-9._\\-]{0,63}" value=${values.name} onInput=${change("name")} aria-describedby="name-hint" /><//>
      <fieldset class="field choices"><legend class="label">Kind</legend>${KINDS.map(([kind, title, text]) => html`<label key=${kind}>
        <input type="radio" name="kind" value=${kind} checked=${values.family === kind} onChange=${change("family")} aria-label=${title} />
        <span>${title}<br /><span class="hint">${text}</span></span></label>`)}</fieldset>
      <${Field} id="quality" label="Quality" hint=${QUALITIES.find(([quality]) => quality === values.quality)[2]}>
        <select id="quality" value=${values.quality} onChange=${change("quality")} aria-describedby="quality-hint">${QUALITIES.map(([quality, title]) => html`<option key=${quality} value=${quality}>${title}</option>`)}</select><//>
      <div class="field"><label><input type="checkbox" checked=${values.gaps} onChange=${change("gaps")} /> Explain rows, and score rows with any values missing</label>
        <p class="hint">Hides cells at random while training, so that the model can say which value makes a row unlikely. Costs a little accuracy for complete rows.</p></div>
      <details><summary>Advanced</summary>
        <div class="fields">
          <${Field} id="family" label="Family of flows" hint=${family?.[2] ?? "In place of the kind above."}>
            <select id="family" value=${family?.[0] ?? ""} onChange=${change("family")} aria-describedby="family-hint"><option value="">as above</option>
              ${FAMILIES.map(([one, title]) => html`<option key=${one} value=${one}>${title}</option>`)}</select><//>
          <${Field} id="minutes" label="Most minutes of training" hint="The best model so far is kept. Empty: no limit.">
            <input id="minutes" type="number" min="0.1" step="any" value=${values.minutes} onInput=${change("minutes")} aria-describedby="minutes-hint" /><//>
          <${Field} id="epochs" label="Most passes over the data" hint="Training ends earlier when nothing improves.">
            <input id="epochs" type="number" min="1" step="1" value=${values.epochs} onInput=${change("epochs")} aria-describedby="epochs-hint" /><//>
          <${Field} id="rate" label="Learning rate" hint="Chosen from the size of the network.">
            <input id="rate" type="number" min="0" step="any" value=${values.rate} onInput=${change("rate")} aria-describedby="rate-hint" /><//>
        </div>
        <fieldset class="card"><legend class="label">Columns</legend>
          <p class="hint">The density of the modelled columns; with given ones, their density for each value of those, which a caller then sends, too.</p>
          <div class="fields">${known.slice(0, more.shown).map((name) => html`<p key=${name} class="row">
            <select aria-label=${`Role of ${name}`} value=${values.roles[name]} onChange=${setRole(name)}>
            ${ROLES.map(([role, title]) => html`<option key=${role} value=${role}>${title}</option>`)}</select> ${name}</p>`)}</div>
          <${More} of=${more} total=${known.length} what="columns" /></fieldset>
        <p class="hint">Other ways to a model: <a href="#/jobs/variational">variational inference</a>, for a density without data, coefficients of a regression or latent variables of rows; a sweep over options, by <code>densityd call POST /v1/jobs/sweep</code>.</p>
      </details>
      ${some && html`<${Estimate} request=${request} />`}
      <p class="row"><button class="first" disabled=${start.busy || !some}>${start.busy ? "Starting…" : "Start training"}</button>
        ${!some && html`<span class="wrong">One column at least must be modelled.</span>`}</p>
      <${ProblemNote} problem=${start.problem} />
    </form>
    <${Elsewhere} curl=${`curl -s ${origin}/v1/jobs/training -H 'Content-Type: application/json' \\\n  -d '${JSON.stringify(request)}'`}
      python=${pythonOf(request)} shell=${commandOf(request)} />`;
}
