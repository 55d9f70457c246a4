// One job, live: the curve of the likelihood that decides, time left, attempts, cancel and resume.
import { html, useEffect, useRef, useState } from "../vendor/vendor.js";
import { call, follow, request } from "./api.js";
import { Curve } from "./charts.js";
import { ago, familyName, nats, number, percent, plural, seconds } from "./format.js";
import { Labels } from "./labels.js";
import { save } from "./rows.js";
import { UnusualRows } from "./unusual.js";
import { Confirm, Crumbs, Elsewhere, InWords, Loaded, origin, ProblemNote, State, useAction, useEvery, useJson } from "./widgets.js";

const ENDED = ["succeeded", "failed", "cancelled"];

/** What the events of a job have told so far; its lists grow in place, an item an epoch. */
class History {
  last = 0;
  latest = null;
  x = [];
  decides = [];
  train = [];
  elbo = [];
  told = [];

  add(events) {
    this.last = events.at(-1).id;
    for (const { id, event, data } of events) {
      if (event === "epoch") this.#addEpoch(data);
      else if (event === "message" || (event === "state" && data.detail)) this.told.push({ id, text: data.detail ?? data.text ?? data.message ?? JSON.stringify(data) });
    }
  }

  #addEpoch(data) {
    this.latest = data;
    this.x.push(data.epoch ?? data.iteration ?? null);
    this.decides.push(decidingOf(data) ?? null);
    this.train.push(data.train_log_likelihood ?? null);
    this.elbo.push(data.elbo ?? null);
  }
}

const decidingOf = (data) => data.robust_validation_log_likelihood ?? data.validation_log_likelihood;

/** Return the curve of a job; null if its kind has none. */
function curveOf({ x, decides, train, elbo }, kind) {
  if (kind === "variational") return { x, xLabel: "iteration", yLabel: "ELBO (nats)", series: [{ label: "ELBO", values: elbo, stroke: "--model", width: 2.5 }] };
  if (kind !== "training") return null;
  return {
    x,
    xLabel: "epoch",
    yLabel: "log likelihood (nats)",
    series: [
      { label: "validation, decides", values: decides, stroke: "--model", width: 2.5 },
      { label: "training", values: train, stroke: "--data", width: 1.5, dash: [5, 4] },
    ],
  };
}

export function Job({ id, row }) {
  const loaded = useJson(`/v1/jobs/${id}`);
  const [, redraw] = useState(0);
  const history = useRef(null);
  history.current ??= new History();
  const [link, setLink] = useState("connecting");
  const [problem, setProblem] = useState(null);
  const [round, setRound] = useState(0);
  useEffect(() => {
    const stop = new AbortController();
    let due = null;
    const show = () => {
      due = null;
      redraw((count) => count + 1);
    };
    follow(id, {
      after: history.current.last,
      signal: stop.signal,
      onState: setLink,
      onEvents: (news) => {
        history.current.add(news);
        due ??= requestAnimationFrame(show);
        if (news.some(({ event }) => event === "state" || event === "end")) loaded.again();
      },
    }).then(() => !stop.signal.aborted && (setLink("ended"), loaded.again()), (error) => setProblem(error));
    return () => { stop.abort(); if (due) cancelAnimationFrame(due); };
  }, [id, round]);
  const parent = loaded.value?.role === "parent";
  useEvery(2, !loaded.loading && parent && !ENDED.includes(loaded.value.state), loaded.again);
  useOpening(loaded.value);
  const cancel = useAction(async () => { await call(`/v1/jobs/${id}/cancel`, { method: "POST" }); loaded.again(); });
  const resume = useAction(async () => { await call(`/v1/jobs/${id}/resume`, { method: "POST" }); loaded.again(); setRound(round + 1); });
  const remove = useAction(async () => { await call(`/v1/jobs/${id}`, { method: "DELETE" }); window.location.hash = "#/jobs"; });
  return html`<${Crumbs} path=${[["Jobs", "#/jobs"]]} /><${ProblemNote} problem=${problem} />
    <${Loaded} of=${loaded} title="Job">${(job) => {
      const latest = history.current.latest ?? job.metrics ?? {};
      const curve = curveOf(history.current, job.kind);
      const running = job.state === "running";
      return html`<div class="head"><div><h1>${job.model.name ?? job.kind}</h1><p class="soft">
        <span role="status"><${State} of=${job.state} /></span> ${job.kind}${job.parent_id && html`, part of <a href=${`#/jobs/${job.parent_id}`}>another job</a>`}, sent ${ago(job.created_at)}${job.attempt > 1 ? `, attempt ${job.attempt}` : ""}
            ${running && html` <span class=${link === "live" ? "state good" : "state queued"} role="status">${link}</span>`}</p></div>
          <p class="row">${!ENDED.includes(job.state) && html`<button type="button" class="harm" disabled=${cancel.busy || job.cancel_requested} onClick=${cancel.run}>${job.cancel_requested ? "Stopping…" : "Cancel"}</button>`}
            ${["failed", "cancelled"].includes(job.state) && html`<button type="button" class="first" disabled=${resume.busy} onClick=${resume.run}>Resume</button>`}
            ${job.state === "succeeded" && job.model.version && html`<a class=${`button ${job.kind === "scoring" ? "" : "first"}`} href=${`#/models/${job.model.name}/${job.model.version}`}>Look at the model</a>`}
            ${job.result && html`<${Result} job=${job} />`}
            ${ENDED.includes(job.state) && html`<${Confirm} label="Delete" question="Delete this job and its events?" busy=${remove.busy} act=${remove.run} />`}</p></div>
        <${ProblemNote} problem=${cancel.problem ?? resume.problem ?? remove.problem} />
        ${job.error && html`<div class="note bad" role="alert"><strong>The job failed</strong><p>${job.error.detail}</p></div>`}
        ${job.state === "queued" && html`<p class="note">${job.next_attempt_at ? `An attempt failed; the next one starts after ${new Date(job.next_attempt_at).toLocaleTimeString()}.` : job.queue ? `Waits for a worker, number ${number(job.queue.position)} in the queue${job.queue.starts_in_seconds === null ? "" : `, for about ${seconds(job.queue.starts_in_seconds)}`}.` : "Waits for a worker."}</p>`}
        ${job.kind === "scoring" && job.state === "succeeded" ? html`<${UnusualRows} path=${`/v1/jobs/${id}/rows?sort=rank&`} address=${`#/jobs/${id}`} row=${row} />` : html`<${Progress} job=${job} latest=${latest} />`}
        <${InWords} of=${job.metrics?.summary} />
        ${parent && html`<${Race} trials=${job.metrics?.trials ?? []} />`}
        ${curve && curve.x.length > 1 && html`<section class="card"><h2>${job.kind === "training" ? "How likely held-out rows are" : "Lower bound of the evidence"}</h2>
          <p class="hint">${job.kind === "training" ? "The validation likelihood decides when training ends and which epoch is kept. Drag over the plot to enlarge a part; double-click shows all." : "It rises to the log evidence."}</p>
          <${Curve} label="Learning curve" ...${curve} summary=${summary(latest)} /></section>`}
        <${Labels} path=${`/v1/jobs/${id}`} of=${job} again=${loaded.again} />
        <${Messages} told=${history.current.told} />
        <section class="card"><details><summary>Every option of this job</summary>
          <pre tabindex="0" role="group" aria-label="Request">${JSON.stringify(job.request, null, 2)}</pre></details></section>
        <${Elsewhere} curl=${`curl -s ${origin}/v1/jobs/${id}\ncurl -sN ${origin}/v1/jobs/${id}/events`} python=${`from densityd.client import Client\n\nwith Client("${origin}") as client:\n    for event in client.jobs.events("${id}"):\n        print(event)`} shell=${`densityd show ${id}\ndensityd wait ${id}`} />`;
    }}<//>`;
}

/** Open the model that a training makes when it ends while it is watched. */
function useOpening(job) {
  const watched = useRef(false);
  useEffect(() => {
    if (!job) return;
    if (!ENDED.includes(job.state)) watched.current = true;
    else if (watched.current && job.state === "succeeded" && job.model.version && job.kind === "training") window.location.hash = `#/models/${job.model.name}/${job.model.version}`;
  }, [job]);
}

const STOPPED = { patience: "nothing improved any more, and the best epoch was kept", max_epochs: "all epochs were done", max_iterations: "all steps were done", max_seconds: "its time was up", converged: "nothing was left to improve" };

const summary = (latest) =>
  latest.epoch ? `After ${plural(latest.epoch, "epoch")} the validation log likelihood is ${nats(decidingOf(latest))} nats; the best epoch is ${latest.best_epoch}.` : "";

function Progress({ job, latest }) {
  const progress = job.state === "succeeded" ? { ...job.progress, fraction: 1 } : job.progress;
  const facts = [
    ["Epoch", latest.epoch && `${number(latest.epoch)}`],
    ["Best epoch", latest.best_epoch && number(latest.best_epoch)],
    ["Best validation", latest.epoch && nats(latest.best_robust_validation_log_likelihood ?? latest.best_validation_log_likelihood)],
    ["Latest", job.state === "running" && latest.epoch && nats(decidingOf(latest))],
    ["Test", job.metrics?.test_log_likelihood !== undefined && `${nats(job.metrics.test_log_likelihood)} ± ${nats(job.metrics.test_standard_error)}`],
    ["ELBO", latest.elbo !== undefined && nats(latest.elbo)],
    ["Log evidence", job.metrics?.log_evidence !== undefined && `${nats(job.metrics.log_evidence)} ± ${nats(job.metrics.log_evidence_standard_error)}`],
    ["Exact log evidence", job.metrics?.exact_log_evidence !== undefined && nats(job.metrics.exact_log_evidence)],
    ["Judged by", job.metrics?.judged_rows && `${number(job.metrics.judged_rows)} held-out rows`],
    ["Rows per second", job.state === "running" && latest.rows_per_second && number(Math.round(latest.rows_per_second))],
    ["Time left", job.state === "running" && progress && seconds(progress.eta_seconds)],
  ].filter(([, value]) => value);
  if (!facts.length && !progress && job.state !== "running") return null;
  return html`<section class="card" aria-label="Progress">
    <dl class="figures">${facts.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>
    ${progress ? html`<progress value=${progress.fraction} max="1" aria-label="Finished part"></progress>
      <p class="hint">${percent(progress.fraction)} done${job.metrics?.stop_reason ? `; ${STOPPED[job.metrics.stop_reason] ?? job.metrics.stop_reason}` : ""}</p>` : job.state === "running" ? html`<progress aria-label="Starting"></progress>
      <p class="hint">A process for this job starts.</p>` : null}
  </section>`;
}

/** What a search has tried: the best of each stage first. */
function Race({ trials }) {
  if (!trials.length) return null;
  const score = (trial) => trial.robust_validation_log_likelihood;
  const sorted = [...trials].sort((one, other) => other.stage - one.stage || (score(other) ?? -Infinity) - (score(one) ?? -Infinity));
  const best = Math.max(...trials.filter((trial) => score(trial) !== null).map(score));
  return html`<section class="card"><h2>What was tried</h2>
    <p class="hint">Each stage trains the best of the one before for longer; the likelihood of held-out rows decides.</p>
    <div class="scroll" tabindex="0" role="region" aria-label="Trials"><table>
      <thead><tr><th scope="col" class="number">Stage</th><th scope="col">Flow</th><th scope="col">State</th>
        <th scope="col" class="number">Held-out log likelihood</th><th scope="col" class="number">Epochs</th>
        <th scope="col" class="number">Time</th></tr></thead>
      <tbody>${sorted.map((trial) => html`<tr key=${trial.job_id}><td class="number">${trial.stage}</td><td>
        <a href=${`#/jobs/${trial.job_id}`}>${familyName(trial.family)}, trial ${trial.trial + 1}</a></td><td><${State} of=${trial.state} /></td>
        <td class=${`number ${score(trial) !== null && score(trial) === best ? "better" : ""}`}>${nats(score(trial))}</td>
          <td class="number">${number(trial.epochs)}</td><td class="number">${seconds(trial.seconds)}</td></tr>`)}</tbody></table></div></section>`;
}

function Messages({ told }) {
  if (!told.length) return null;
  return html`<section class="card"><h2>What happened</h2>
    <ul>${told.slice(-50).map(({ id, text }) => html`<li key=${id}>${text}</li>`)}</ul></section>`;
}

function Result({ job }) {
  const get = useAction(async () => {
    const type = ["csv", "npy"].find((one) => job.result.media_type.includes(one)) ?? "parquet";
    save(`${job.id}.${type}`, await (await request(`/v1/jobs/${job.id}/result`)).blob());
  });
  return html`<button type="button" class="first" disabled=${get.busy} onClick=${get.run}>Download the result</button><${ProblemNote} problem=${get.problem} />`;
}
