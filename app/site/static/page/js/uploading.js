// Sending a table: by dropping a file, choosing one, or pasting its text.
import { html, useRef, useState } from "../vendor/vendor.js";
import { Problem, upload } from "./api.js";
import { bytes, percent } from "./format.js";
import { ProblemNote, useAction } from "./widgets.js";

const TYPES = {
  csv: "text/csv", tsv: "text/csv", txt: "text/csv", json: "application/json", ndjson: "application/x-ndjson", jsonl: "application/x-ndjson",
  npy: "application/x-npy", parquet: "application/vnd.apache.parquet", arrow: "application/vnd.apache.arrow.stream", arrows: "application/vnd.apache.arrow.stream",
  xlsx: "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
};
const SHEETS = ["xls", "ods"];

/** Return the media type of a file by its name; throw a Problem for one that is no table. */
function typeOf(name) {
  const suffix = name.toLowerCase().split(".").pop();
  if (SHEETS.includes(suffix)) throw new Problem(415, { title: "This is a spreadsheet", detail: "Save it as .xlsx or as CSV and send that file." });
  if (["gz", "zip", "zst"].includes(suffix)) throw new Problem(415, { title: "This file is compressed", detail: "Unpack it first, or send it by curl with Content-Encoding." });
  return TYPES[suffix] ?? "text/csv";
}

/** Upload a file as a dataset and show it. */
async function send(file, onProgress = () => {}) {
  const name = file.name.replace(/\.[^.]*$/, "").slice(0, 200);
  const dataset = await upload(`/v1/datasets?name=${encodeURIComponent(name)}`, file, typeOf(file.name), onProgress);
  window.location.hash = `#/datasets/${dataset.id}`;
  return dataset;
}

/** A place to drop a file on, or to choose one. */
export function Drop() {
  const chooser = useRef(null);
  const [over, setOver] = useState(false);
  const [sent, setSent] = useState(null);
  const [file, setFile] = useState(null);
  const sending = useAction((chosen) => send(chosen, setSent));
  const start = (chosen) => {
    if (!chosen) return;
    setFile(chosen);
    setSent(0);
    sending.run(chosen);
  };
  const onDrop = (event) => {
    event.preventDefault();
    setOver(false);
    start(event.dataTransfer.files[0]);
  };
  return html`
    <div class=${`drop ${over ? "over" : ""}`} onDragOver=${(event) => { event.preventDefault(); setOver(true); }} onDragLeave=${() => setOver(false)} onDrop=${onDrop}>
      ${sending.busy
        ? html`<p role="status"><strong>${sent < 1 ? `Sending ${file.name}` : `Reading ${file.name}`}</strong><br />
            <span class="soft">${bytes(file.size)}, ${sent < 1 ? `${percent(sent)} sent` : "looking at the types of its columns"}</span></p>
            ${sent < 1 ? html`<progress value=${sent} max="1" aria-label="Sent"></progress>` : html`<progress aria-label="Reading"></progress>`}`
        : html`<strong>Drop a table here</strong>
            <span class="soft">CSV, Parquet, Arrow, JSON, NDJSON or npy; texts, dates and missing values are fine as they are</span>
            <input ref=${chooser} type="file" hidden id="file" onChange=${(event) => { start(event.target.files[0]); event.target.value = ""; }} />
            <button type="button" class="first" onClick=${() => chooser.current.click()}>Choose a file</button>`}
    </div>
    <${ProblemNote} problem=${sending.problem} />`;
}
