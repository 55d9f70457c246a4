// Targets of variational inference: the kinds of density, what each asks for, and its request.
import { html } from "../vendor/vendor.js";
import { call, first } from "./api.js";
import { plural } from "./format.js";
import { Field, Loaded, useLoaded } from "./widgets.js";

/** Kinds of density: [name, title, what it is for]. */
export const KINDS = [
  ["formula", "A formula", "A log density that you write down, up to a constant."],
  ...[["U1", "a ring with two masses"], ["U2", "a wave"], ["U3", "a wave that splits"], ["U4", "a wave with a second"], ["U5", "a wide ring"]].map(([name, title]) => [name, `${name}, ${title}`, "A known test density in the plane."]),
  ["linear", "Coefficients of a linear regression", "The posterior of the coefficients that explain one column by the others."],
  ["logistic", "Coefficients of a logistic regression", "The same for a column of 0 and 1."],
  ["latent", "Latent variables of each row", "What nobody sees behind a row: one flow gives the posterior of any row, new ones included."],
];

const LIKELIHOODS = [["gaussian", "numbers with Gaussian noise"], ["bernoulli", "0 and 1"]];

const DECODERS = [
  ["linear", "learnt, linear", "A factor analysis, or its form for 0 and 1."],
  ["layers", "learnt, with a hidden layer", "A variational autoencoder: more flexible, and slower."],
  ["known", "known, linear", "You know the weights: then each row is a Bayesian regression of its own."],
];

export const FIRST = { kind: "formula", formula: "-z1^2 / 8 - 2 * (z2 - z1^2 / 4)^2", dim: "2", dataset: "", response: "", noise: "1", likelihood: "gaussian", decoder: "linear", latents: "2", units: "64", loadings: "" };

const isOf = (kind, ...kinds) => kinds.includes(kind);
export const needsTable = ({ kind }) => isOf(kind, "linear", "logistic", "latent");

/** Return the numbers of pasted weights, a line for each column. */
const weightsOf = (text) => text.split("\n").filter((line) => line.trim()).map((line) => line.split(/[,;\s]+/).filter(Boolean).map(Number));

/** Return the target of the form's values. */
export function targetOf(values) {
  const { kind } = values;
  if (kind === "formula") return { log_density: values.formula, dim: Number(values.dim) };
  if (!needsTable(values)) return { potential: kind };
  const noise = { noise_scale: Number(values.noise) };
  if (kind !== "latent") return { posterior: { kind, dataset_id: values.dataset, response: values.response, ...(kind === "linear" && noise) } };
  const model = { dataset_id: values.dataset, likelihood: values.likelihood };
  if (values.decoder === "known") return { latent: { ...model, loadings: weightsOf(values.loadings), ...(values.likelihood === "gaussian" && noise) } };
  return { latent: { ...model, dim: Number(values.latents), ...(values.decoder === "layers" && { hidden: [Number(values.units)] }) } };
}

/** The fields of a kind of density. */
export function TargetFields({ values, change }) {
  const { kind } = values;
  if (kind === "formula") {
    return html`<${Field} id="formula" label="Log density" hint="Of z1, z2 and so on, in nats, up to a constant.">
        <input id="formula" type="text" required value=${values.formula} onInput=${change("formula")} aria-describedby="formula-hint" /><//>
      <${Field} id="dim" label="Dimensions"><input id="dim" type="number" min="1" max="100" required value=${values.dim} onInput=${change("dim")} /><//>`;
  }
  return needsTable(values) && html`<${TableFields} values=${values} change=${change} />`;
}

function TableFields({ values, change }) {
  const tables = useLoaded((signal) => first("/v1/datasets", 1000, { signal }), []);
  const { dataset, kind } = values;
  const chosen = useLoaded(async (signal) => dataset && call(`/v1/datasets/${dataset}`, { signal }), [dataset]);
  const columns = (chosen.value?.columns ?? []).filter(({ type }) => type !== "ignored").map(({ name }) => name);
  return html`<${Loaded} of=${tables}>${({ items, isWhole }) => html`
      <${Field} id="dataset" label="Dataset" hint=${items.length === 0 ? html`None yet: <a href="#/datasets">upload a table</a> first.` : isWhole ? "" : "The newest 1,000."}>
        <select id="dataset" required value=${dataset} onChange=${change("dataset")}><option value="">choose one</option>
          ${items.map(({ id, name, rows, column_count: count }) => html`<option key=${id} value=${id}>${name ?? id}: ${plural(rows, "row")}, ${plural(count, "column")}</option>`)}</select><//>`}<//>
    ${kind === "latent" ? html`<${LatentFields} values=${values} change=${change} columns=${columns} />` : html`
      <${Field} id="response" label="Column to explain" hint=${kind === "logistic" ? "It must be 0 or 1 in every row." : ""}>
        <select id="response" required value=${values.response} onChange=${change("response")}><option value="">choose one</option>
          ${columns.map((name) => html`<option key=${name}>${name}</option>`)}</select><//>
      ${kind === "linear" && html`<${Noise} values=${values} change=${change} of="the column to explain" />`}`}`;
}

const Noise = ({ values, change, of }) => html`<${Field} id="noise" label="Standard deviation of the noise" hint=${`Known, in units of ${of}.`}>
  <input id="noise" type="number" min="0.000001" step="any" required value=${values.noise} onInput=${change("noise")} aria-describedby="noise-hint" /><//>`;

function LatentFields({ values, change, columns }) {
  const known = values.decoder === "known";
  return html`<${Field} id="likelihood" label="The columns are">
      <select id="likelihood" value=${values.likelihood} onChange=${change("likelihood")}>${LIKELIHOODS.map(([name, title]) => html`<option key=${name} value=${name}>${title}</option>`)}</select><//>
    <${Field} id="decoder" label="How the columns follow from the latent variables (the decoder)" hint=${DECODERS.find(([name]) => name === values.decoder)[2]}>
      <select id="decoder" value=${values.decoder} onChange=${change("decoder")} aria-describedby="decoder-hint">${DECODERS.map(([name, title]) => html`<option key=${name} value=${name}>${title}</option>`)}</select><//>
    ${!known && html`<${Field} id="latents" label="Latent variables" hint="How many; two can be drawn in a plane.">
      <input id="latents" type="number" min="1" max="100" required value=${values.latents} onInput=${change("latents")} aria-describedby="latents-hint" /><//>`}
    ${values.decoder === "layers" && html`<${Field} id="units" label="Units of the hidden layer">
      <input id="units" type="number" min="1" required value=${values.units} onInput=${change("units")} /><//>`}
    ${known && html`<${Field} id="loadings" label="Weights" hint=${`A line for each column${columns.length ? ` (${columns.slice(0, 8).join(", ")}${columns.length > 8 ? ", …" : ""})` : ""}, a number for each latent variable.`}>
      <textarea id="loadings" rows="5" required spellcheck=${false} placeholder=${"1, 0\n0.5, 0.5\n0, 1"} value=${values.loadings} onInput=${change("loadings")} aria-describedby="loadings-hint"></textarea><//>`}
    ${known && values.likelihood === "gaussian" && html`<${Noise} values=${values} change=${change} of="the columns" />`}`;
}
