// The rows that a version scored: how likely they were, by day or hour, and whether they have drifted.
import { html, useState } from "../vendor/vendor.js";
import { all, call } from "./api.js";
import { number, percent, plural } from "./format.js";
import { Elsewhere, Loaded, origin, ProblemNote, useAction, useJson, useLoaded } from "./widgets.js";

const WIDTH = 420;
const HEIGHT = 170;
const LEFT = 44;
const BOTTOM = 22;
const TOP = 12;
const SPANS = [["day", "24 hours", "hour"], ["week", "7 days", "day"], ["quarter", "90 days", "day"]];
const HOURS = { day: 24, week: 7 * 24, quarter: 90 * 24 };
const HOUR_MS = 3_600_000;
const MOST_NAMES = 8;

export function Monitoring({ version, reference }) {
  const [span, setSpan] = useState("week");
  const [, , bucket] = SPANS.find(([id]) => id === span);
  const [since] = useState(() => Object.fromEntries(SPANS.map(([id]) => [id, new Date(Date.now() - HOURS[id] * HOUR_MS).toISOString()])));
  const path = `/v1/models/${reference}/monitoring?bucket=${bucket}&since=${since[span]}`;
  const loaded = useJson(path);
  return html`<p class="row"><label for="span">Rows scored in the last</label>
      <select id="span" value=${span} onChange=${(event) => setSpan(event.target.value)}>${SPANS.map(([id, title]) => html`<option key=${id} value=${id}>${title}</option>`)}</select>
      <button type="button" class="quiet" onClick=${loaded.again}>Look again</button></p>
    <${Loaded} of=${loaded}>${(found) => (found.rows === 0 ? html`<p class="empty">No row was scored in this time. Scores by the page, the API and scoring jobs are counted here; the rows themselves are not kept.</p>` : html`<${Watched} found=${found} bucket=${bucket} />`)}<//>
    <${Retrain} version=${version} reference=${reference} />
    <${Elsewhere} curl=${`curl -s '${origin}/v1/models/${reference}/monitoring'`} shell=${`densityd call GET /v1/models/${reference}/monitoring`} />`;
}

function Watched({ found, bucket }) {
  const drifted = found.columns.filter((one) => one.drifted);
  const names = drifted.slice(0, MOST_NAMES).map((one) => one.column).join(", ");
  const reasons = Object.entries(found.reasons).sort(([, one], [, other]) => other - one);
  return html`
    <div class=${`note ${found.drift.drifted ? "warn" : "good"}`} role="status">${found.drift.drifted
      ? html`<strong>These rows have drifted</strong> from those that the model was made of${drifted.length > 0 ? html`, most clearly in <strong>${names}</strong>` : ""}. Chance alone gives so large a difference with a probability of ${chance(found.drift.p_value)}.`
      : html`<strong>No drift is seen.</strong> Chance alone explains the differences between these rows and those that the model was made of (p = ${chance(found.drift.p_value)}).`}</div>
    <div class="halves"><section class="card plot"><h2>Ranks of ${plural(found.rows, "row")}</h2>
      <p class="hint">Each tenth should have as many rows as the dashed line says. More at the left: rows that the model finds unlikely.</p>
      <${Tenths} found=${found} /></section>
    <section class="card plot"><h2>Unusual rows by ${bucket}</h2>
      <p class="hint">Share of rows with a rank of 1 % or below; without drift it stays near the dashed line. ▲ marks drift.</p>
      <${Shares} buckets=${found.buckets} bucket=${bucket} /></section></div>
    ${found.columns.length > 0 && html`<section class="card"><h2>Columns</h2><p class="hint">Values of the scored rows beside those of the model's dataset, in parts that had about as many of its rows each, from the lowest values to the highest, then missing ones.</p>
      <div class="scroll" tabindex="0" role="region" aria-label="Columns"><table><thead><tr><th scope="col">Column</th><th scope="col">Scored rows</th><th scope="col" class="number">Distance</th><th scope="col">Drifted</th>${reasons.length > 0 && html`<th scope="col" class="number">Made rows unusual</th>`}</tr></thead>
      <tbody>${found.columns.map((one) => html`<tr key=${one.column}><td>${one.column}</td><td class="plot"><${Parts} of=${one} /></td><td class="number">${one.statistic.toFixed(3)}</td>
        <td>${one.drifted ? html`<span class="state failed">drifted</span>` : "no"}</td>${reasons.length > 0 && html`<td class="number">${number(found.reasons[one.column] ?? 0)}</td>`}</tr>`)}</tbody></table></div></section>`}`;
}

const chance = (p) => (p < 1e-6 ? "less than one in a million" : p < 0.001 ? p.toExponential(0) : p.toFixed(3));

/** Bars of rows by the tenth of their ranks, with the shares of held-out rows as a dashed line. */
function Tenths({ found }) {
  const shares = found.ranks.map((count) => count / found.rows);
  const top = Math.max(...shares, ...found.expected) * 1.1;
  const width = (WIDTH - LEFT) / shares.length;
  const y = (share) => HEIGHT - BOTTOM - (share / top) * (HEIGHT - BOTTOM - TOP);
  const line = found.expected.map((share, at) => `${at ? "L" : "M"}${LEFT + at * width},${y(share)}h${width}`).join("");
  return html`<svg viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label=${`Share of rows in each tenth of the ranks: ${shares.map(percent).join(", ")}`}>
    <${Grid} top=${top} y=${y} />
    ${shares.map((share, at) => html`<rect key=${at} class="data" x=${LEFT + at * width + 2} y=${y(share)} width=${width - 4} height=${y(0) - y(share)}><title>${`${at * 10} to ${at * 10 + 10} %: ${plural(found.ranks[at], "row")}, ${percent(share)}`}</title></rect>
      ${at % 2 === 0 && html`<text key=${`name${at}`} x=${LEFT + at * width} y=${HEIGHT - 6} text-anchor="middle">${at * 10}</text>`}`)}
    <text x=${WIDTH} y=${HEIGHT - 6} text-anchor="end">100 %</text>
    <path class="model" stroke-dasharray="6 4" d=${line} /></svg>`;
}

/** Bars of the share of unusual rows by hour or day. */
function Shares({ buckets, bucket }) {
  const shares = buckets.map((one) => one.unusual / one.rows);
  const top = Math.max(...shares, 0.02) * 1.15;
  const width = Math.min((WIDTH - LEFT) / buckets.length, 90);
  const y = (share) => HEIGHT - BOTTOM - (share / top) * (HEIGHT - BOTTOM - TOP);
  const every = Math.ceil(buckets.length / 6);
  const name = (start) => (bucket === "hour" ? `${start.slice(11, 16)}` : start.slice(5, 10));
  return html`<svg viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label=${`Share of unusual rows by ${bucket}, in UTC: ${buckets.map((one, at) => `${name(one.start)} ${percent(shares[at])}${one.drift.drifted ? ", drifted" : ""}`).join("; ")}`}>
    <${Grid} top=${top} y=${y} />
    ${buckets.map((one, at) => {
      const x = LEFT + at * width;
      return html`<g key=${one.start}><rect class=${one.drift.drifted ? "bar-model" : "data"} x=${x + 1} y=${y(shares[at])} width=${Math.max(width - 2, 1)} height=${y(0) - y(shares[at])}><title>${`${name(one.start)}: ${plural(one.unusual, "unusual row")} of ${number(one.rows)}, ${percent(shares[at])}${one.drift.drifted ? `; drifted${one.drifted_columns.length ? ` in ${one.drifted_columns.join(", ")}` : ""}` : ""}`}</title></rect>
        ${one.drift.drifted && html`<text x=${x + width / 2} y=${y(shares[at]) - 3} text-anchor="middle">▲</text>`}
        ${at % every === 0 && html`<text x=${x + width / 2} y=${HEIGHT - 6} text-anchor="middle">${name(one.start)}</text>`}</g>`;
    })}
    <line class="diagonal" stroke-dasharray="6 4" x1=${LEFT} x2=${WIDTH} y1=${y(0.01)} y2=${y(0.01)} /></svg>`;
}

function Grid({ top, y }) {
  return html`<line class="axis" x1=${LEFT} x2=${WIDTH} y1=${y(0)} y2=${y(0)} />
    ${[0, top / 2.2, top / 1.1].map((share) => html`<text key=${share} x=${LEFT - 6} y=${y(share) + 4} text-anchor="end">${percent(share)}</text>`)}`;
}

/** Small bars of the values of a column beside their expected shares. */
function Parts({ of: { column, counts, expected } }) {
  const total = counts.reduce((sum, count) => sum + count, 0) || 1;
  const shares = counts.map((count) => count / total);
  const shown = shares.map((share, at) => ({ share, wanted: expected[at] })).filter(({ share, wanted }, at) => at < shares.length - 1 || share > 0 || wanted > 0);
  const top = Math.max(...shown.flatMap(({ share, wanted }) => [share, wanted]));
  const y = (share) => 32 - (share / top) * 30;
  return html`<svg class="parts" width=${shown.length * 16} height="34" viewBox=${`0 0 ${shown.length * 16} 34`} role="img" aria-label=${`Shares of the parts of ${column}: ${shown.map(({ share, wanted }) => `${percent(share)} for ${percent(wanted)}`).join(", ")}`}>
    ${shown.map(({ share, wanted }, at) => html`<g key=${at}><rect class="data" x=${at * 16 + 1} y=${y(share)} width="14" height=${32 - y(share)}><title>${`${percent(share)} of the scored rows, ${percent(wanted)} of the dataset's`}</title></rect>
      <path class="model" d=${`M${at * 16},${y(wanted)}h16`} /></g>`)}</svg>`;
}

function Retrain({ version, reference }) {
  const loaded = useLoaded((signal) => all("/v1/datasets", { signal }), []);
  const [chosen, setChosen] = useState("");
  const start = useAction(async (dataset) => {
    const job = await call(`/v1/models/${reference}/retrain`, { method: "POST", json: { dataset_id: dataset } });
    window.location.hash = `#/jobs/${job.id}`;
  });
  if (!version.lineage.job_id) return null;
  return html`<section class="card"><h2>Train anew</h2><p class="hint">The same training on another dataset, such as this month's; it becomes the next version. Compare the two before you promote it.</p>
    <${Loaded} of=${loaded}>${(datasets) => html`<form class="row" onSubmit=${(event) => { event.preventDefault(); start.run(chosen); }}>
      <label for="newer">Dataset</label><select id="newer" required value=${chosen} onChange=${(event) => setChosen(event.target.value)}><option value="">Choose one</option>
        ${datasets.map((one) => html`<option key=${one.id} value=${one.id}>${`${one.name ?? one.id}, ${plural(one.rows, "row")}`}</option>`)}</select>
      <button disabled=${start.busy || !chosen}>Train anew</button></form>`}<//><${ProblemNote} problem=${start.problem} /></section>`;
}
