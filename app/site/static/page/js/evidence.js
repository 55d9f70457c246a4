// Rows of data in, lower bounds of their log evidence out, of a model with latent variables.
import { html, useEffect, useState } from "../vendor/vendor.js";
import { call } from "./api.js";
import { nats, plural } from "./format.js";
import { csv, exampleRows, parseRows, save } from "./rows.js";
import { DataTable, Elsewhere, Field, origin, ProblemNote, useAction } from "./widgets.js";

const MOST = 2000;

export function Evidence({ version, reference }) {
  const [values, setValues] = useState({ text: "", samples: "100" });
  const [result, setResult] = useState(null);
  const change = (name) => (event) => setValues({ ...values, [name]: event.target.value });
  useEffect(() => {
    const begin = (text) => setValues((now) => ({ ...now, text: now.text || text }));
    exampleRows(version, version.context_columns).then(begin, () => begin(`${version.context_columns.join(",")}\n`));
  }, [reference]);
  const run = useAction(async () => {
    const table = parseRows(values.text);
    table.rows.length = Math.min(table.rows.length, MOST);
    const found = await call(`/v1/models/${reference}/evidence?samples=${values.samples}`, { method: "POST", body: csv(table.columns, table.rows), headers: { "Content-Type": "text/csv", Accept: "application/json" } });
    setResult({ table, found });
  });
  return html`<form class="card" onSubmit=${(event) => { event.preventDefault(); run.run(); }}>
      <${Field} id="rows" label="Rows, with a line of names" hint=${`The columns that the latent variables explain: ${version.context_columns.slice(0, 12).join(", ")}${version.context_columns.length > 12 ? ", …" : ""}. ${MOST.toLocaleString()} rows at most.`}>
        <textarea id="rows" rows="8" spellcheck=${false} aria-describedby="rows-hint" value=${values.text} onInput=${change("text")}></textarea><//>
      <${Field} id="samples" label="Samples of the posterior of each row" hint="More samples raise the importance-weighted bound towards log p(row), and take longer.">
        <input id="samples" type="number" min="1" max="10000" required value=${values.samples} onInput=${change("samples")} aria-describedby="samples-hint" /><//>
      <button class="first" disabled=${run.busy || !values.text.trim()}>${run.busy ? "Computing…" : "Compute the evidence"}</button><${ProblemNote} problem=${run.problem} /></form>
    ${result && html`<${Bounds} ...${result} />`}
    <${Elsewhere} curl=${`curl -s "${origin}/v1/models/${reference}/evidence?samples=${values.samples}" -H 'Content-Type: text/csv' --data-binary @rows.csv`}
      python=${`import pandas as pd\nfrom densityd.client import Client\n\nrows = pd.read_csv("rows.csv")\nwith Client("${origin}") as client:\n    rows["elbo"], rows["log_evidence"] = client.evidence("${reference}", rows, samples=${values.samples})`}
      shell=${`densityd score ${reference} rows.csv --evidence --samples ${values.samples}`} />`;
}

function Bounds({ table, found: { elbo, log_evidence: evidence, row_errors: errors } }) {
  const order = table.rows.map((_, at) => at).sort((one, other) => (evidence[one] ?? -Infinity) - (evidence[other] ?? -Infinity));
  const shown = (value) => (value === null ? "none" : nats(value));
  const download = () => save("evidence.csv", new Blob([csv([...table.columns, "elbo", "log_evidence"], table.rows.map((row, at) => [...row, elbo[at], evidence[at]]))], { type: "text/csv" }));
  return html`<section class="card" aria-label="Evidence"><div role="status"><h2>Evidence of ${plural(table.rows.length, "row")}</h2></div>
    <p class="hint">Lower bounds of log p(row) in nats, the least likely row first: low where no latent variables explain the row. The bound is never below the ELBO; a wide gap says that the posterior is approximated badly there, or that more samples would help.</p>
    <p class="row"><button type="button" onClick=${download}>Download as CSV</button></p>
    <${DataTable} caption="Rows and their bounds" columns=${["Row", "ELBO", "Importance-weighted bound", ...table.columns]} rows=${order.map((at) => [at + 1, shown(elbo[at]), shown(evidence[at]), ...table.rows[at]])} first=${100} />
    ${errors.length > 0 && html`<p class="hint">${plural(errors.length, "row has", "rows have")} no finite evidence: ${errors[0].detail}</p>`}</section>`;
}
