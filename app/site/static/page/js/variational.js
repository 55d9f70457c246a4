// The start of variational inference: a formula or one of five known densities in the plane.
import { html, useEffect, useState } from "../vendor/vendor.js";
import { call } from "./api.js";
import { Heatmap } from "./plane.js";
import { Crumbs, Elsewhere, Field, origin, ProblemNote, useAction } from "./widgets.js";

const POTENTIALS = [["", "a formula"], ["U1", "U1, a ring with two masses"], ["U2", "U2, a wave"], ["U3", "U3, a wave that splits"], ["U4", "U4, a wave with a second"], ["U5", "U5, a wide ring"]];

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
  const inPlane = values.potential || values.dim === "2";
  return html`<${Crumbs} path=${[["Jobs", "#/jobs"]]} /><h1>Fit a flow to a density</h1>
    <p class="soft">For a density that is known up to a constant, without data: a flow that can be sampled, and the log of the constant. The model page draws it.</p>
    <form class="card" onSubmit=${(event) => { event.preventDefault(); start.run(); }}>
      <${Field} id="name" label="Name of the model">
        <input id="name" type="text" required pattern="[a-z0-9][a-z0-9._\\-]{0,63}" value=${values.name} onInput=${change("name")} /><//>
      <${Field} id="potential" label="Density">
        <select id="potential" value=${values.potential} onChange=${change("potential")}>${POTENTIALS.map(([name, title]) => html`<option key=${name} value=${name}>${title}</option>`)}</select><//>
      ${!values.potential && html`<${Field} id="formula" label="Log density" hint="Of z1, z2 and so on, in nats, up to a constant.">
          <input id="formula" type="text" required value=${values.formula} onInput=${change("formula")} aria-describedby="formula-hint" /><//>
        <${Field} id="dim" label="Dimensions"><input id="dim" type="number" min="1" max="100" required value=${values.dim} onInput=${change("dim")} /><//>`}
      <${Field} id="iterations" label="Steps" hint="Empty: 5,000.">
        <input id="iterations" type="number" min="1" value=${values.iterations} onInput=${change("iterations")} aria-describedby="iterations-hint" /><//>
      <button class="first" disabled=${start.busy}>${start.busy ? "Starting…" : "Start"}</button><${ProblemNote} problem=${start.problem} /></form>
    ${inPlane ? html`<${Preview} target=${request.target} />` : html`<p class="soft">A density of two dimensions is drawn here before it is trained.</p>`}
    <${Elsewhere} curl=${`curl -s ${origin}/v1/jobs/variational -H 'Content-Type: application/json' \\\n  -d '${JSON.stringify(request)}'`}
      python=${`from densityd.client import Client\n\nwith Client("${origin}") as client:\n    job = client.jobs.variational("${values.name}", ${JSON.stringify(request.target)}${values.iterations ? `, optimisation={"iterations": ${values.iterations}}` : ""})\n    print(client.jobs.wait(job.id).ref)`} />`;
}

/** The density in the plane, a moment after the last change. */
function Preview({ target }) {
  const wanted = JSON.stringify(target);
  const [shown, setShown] = useState({});
  useEffect(() => {
    const stop = new AbortController();
    const timer = setTimeout(() => {
      call("/v1/jobs/variational/preview", { method: "POST", json: { target }, signal: stop.signal }).then(
        (plane) => setShown({ plane }),
        (problem) => stop.signal.aborted || setShown((before) => ({ ...before, problem })),
      );
    }, 300);
    return () => { clearTimeout(timer); stop.abort(); };
  }, [wanted]);
  const { plane, problem } = shown;
  return html`<section class="card" aria-label="Density"><h2>The density in the plane</h2>
    ${problem ? html`<p class="wrong" role="status">${problem.message.split("\n").map((line) => html`<code class="line">${line}</code>`)}</p>` : ""}
    ${plane && html`<${Heatmap} label="Density of the target: z2 against z1" window=${plane.window} values=${plane.log_density} names=${["z1", "z2"]} />`}
    ${!plane && !problem && html`<p class="loading pulse" role="status">Drawing…</p>`}</section>`;
}
