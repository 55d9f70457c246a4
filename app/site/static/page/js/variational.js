// The start of variational inference: a formula or one of five known densities in the plane.
import { html, useState } from "../vendor/vendor.js";
import { call } from "./api.js";
import { Crumbs, Elsewhere, Field, origin, ProblemNote, useAction } from "./widgets.js";

const POTENTIALS = [["", "a formula"], ["U1", "U1, a ring with two masses"], ["U2", "U2, a wave"], ["U3", "U3, a wave that splits"], ["U4", "U4, a wave with a second"], ["U5", "U5"]];

export function Variational() {
  const [values, setValues] = useState({ name: "banana", potential: "", formula: "-z1^2 / 8 - 2 * (z2 - z1^2 / 4)^2", dim: "2", iterations: "" });
  const change = (name) => (event) => setValues({ ...values, [name]: event.target.value });
  const request = {
    model_name: values.name,
    target: values.potential ? { potential: values.potential } : { log_density: values.formula, dim: Number(values.dim) },
    ...(values.iterations && { optimisation: { iterations: Number(values.iterations) } }),
  };
  const start = useAction(async () => {
    const job = await call("/v1/jobs/variational", { method: "POST", json: request, headers: { "Idempotency-Key": crypto.randomUUID() } });
    window.location.hash = `#/jobs/${job.id}`;
  });
  return html`<${Crumbs} path=${[["Jobs", "#/jobs"]]} /><h1>Fit a flow to a density</h1>
    <p class="soft">For a density that is known up to a constant, without data: a flow that can be sampled, and the log of the constant. The model page draws it.</p>
    <form class="card" onSubmit=${(event) => { event.preventDefault(); start.run(); }}>
      <${Field} id="name" label="Name of the model"><input id="name" type="text" required pattern="[a-z0-9][a-z0-9._\\-]{0,63}" value=${values.name} onInput=${change("name")} /><//>
      <${Field} id="potential" label="Density"><select id="potential" value=${values.potential} onChange=${change("potential")}>${POTENTIALS.map(([name, title]) => html`<option key=${name} value=${name}>${title}</option>`)}</select><//>
      ${!values.potential && html`<${Field} id="formula" label="Log density" hint="Of z1, z2 and so on, in nats, up to a constant.">
          <input id="formula" type="text" required value=${values.formula} onInput=${change("formula")} aria-describedby="formula-hint" /><//>
        <${Field} id="dim" label="Dimensions"><input id="dim" type="number" min="1" max="100" required value=${values.dim} onInput=${change("dim")} /><//>`}
      <${Field} id="iterations" label="Steps" hint="Empty: 5,000."><input id="iterations" type="number" min="1" value=${values.iterations} onInput=${change("iterations")} aria-describedby="iterations-hint" /><//>
      <button class="first" disabled=${start.busy}>${start.busy ? "Starting…" : "Start"}</button><${ProblemNote} problem=${start.problem} /></form>
    <${Elsewhere} curl=${`curl -s ${origin}/v1/jobs/variational -H 'Content-Type: application/json' \\\n  -d '${JSON.stringify(request)}'`} />`;
}
