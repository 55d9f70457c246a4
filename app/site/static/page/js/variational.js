// The start of variational inference: a density without data, of coefficients, or of latent variables of rows.
import { html, useEffect, useState } from "../vendor/vendor.js";
import { call } from "./api.js";
import { Heatmap } from "./plane.js";
import { FIRST, KINDS, needsTable, TargetFields, targetOf } from "./targets.js";
import { Crumbs, Elsewhere, Field, origin, ProblemNote, useAction } from "./widgets.js";

export function Variational() {
  const [values, setValues] = useState({ name: "banana", iterations: "", ...FIRST });
  const change = (name) => (event) => setValues((now) => ({ ...now, [name]: event.target.value }));
  const target = targetOf(values);
  const request = { model_name: values.name, target, ...(values.iterations && { optimisation: { iterations: Number(values.iterations) } }) };
  const start = useAction(async () => {
    const job = await call("/v1/jobs/variational", { method: "POST", json: request, headers: { "Idempotency-Key": crypto.randomUUID() } });
    window.location.hash = `#/jobs/${job.id}`;
  });
  const ofTable = needsTable(values);
  const inPlane = !ofTable && (values.kind !== "formula" || values.dim === "2");
  return html`<${Crumbs} path=${[["Jobs", "#/jobs"]]} /><h1>Fit a flow to a density</h1>
    <p class="soft">Variational inference: for a density that is known up to a constant, a flow that can be sampled, and the log of the constant, which for a Bayesian model is its evidence.</p>
    <form class="card" onSubmit=${(event) => { event.preventDefault(); start.run(); }}>
      <${Field} id="name" label="Name of the model">
        <input id="name" type="text" required pattern="[a-z0-9][a-z0-9._\\-]{0,63}" value=${values.name} onInput=${change("name")} /><//>
      <${Field} id="kind" label="Density" hint=${KINDS.find(([kind]) => kind === values.kind)[2]}>
        <select id="kind" value=${values.kind} onChange=${change("kind")} aria-describedby="kind-hint">${KINDS.map(([kind, title]) => html`<option key=${kind} value=${kind}>${title}</option>`)}</select><//>
      <${TargetFields} values=${values} change=${change} />
      <${Field} id="iterations" label="Steps" hint="Empty: 2,000 or 5,000, as suits the density.">
        <input id="iterations" type="number" min="1" value=${values.iterations} onInput=${change("iterations")} aria-describedby="iterations-hint" /><//>
      <button class="first" disabled=${start.busy}>${start.busy ? "Starting…" : "Start"}</button><${ProblemNote} problem=${start.problem} /></form>
    ${inPlane ? html`<${Preview} target=${target} />` : !ofTable && html`<p class="soft">A density of two dimensions is drawn here before it is trained.</p>`}
    <${Elsewhere} curl=${`curl -s ${origin}/v1/jobs/variational -H 'Content-Type: application/json' \\\n  -d '${JSON.stringify(request).replaceAll("'", "'\\''")}'`}
      python=${`from densityd.client import Client\n\nwith Client("${origin}") as client:\n    job = client.jobs.variational("${values.name}", ${JSON.stringify(target)}${values.iterations ? `, optimisation={"iterations": ${values.iterations}}` : ""})\n    print(client.jobs.wait(job.id).ref)`}
      shell=${`densityd call POST /v1/jobs/variational '${JSON.stringify(request).replaceAll("'", "'\\''")}'`} />`;
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
