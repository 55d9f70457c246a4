// Tables on their way to the service: the place to drop a file on, what kind of file it is, and the upload.
import { html, signal, useRef, useState } from "../vendor/vendor.js";
import { call, Problem, upload } from "./api.js";
import { ProblemNote, useAction } from "./widgets.js";

const TYPES = {
  csv: "text/csv", tsv: "text/csv", txt: "text/csv", json: "application/json", ndjson: "application/x-ndjson", jsonl: "application/x-ndjson",
  npy: "application/x-npy", parquet: "application/vnd.apache.parquet", arrow: "application/vnd.apache.arrow.stream", arrows: "application/vnd.apache.arrow.stream",
  xlsx: "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
};
const SHEETS = ["xls", "ods"];
const BY_LINES = ["text/csv", "application/x-ndjson"];
const WHOLE_BYTES = 4 << 20; // that are previewed whole
const PART_BYTES = 1 << 20; // of a longer file of lines

/** The file that was dropped last, while it is looked at. */
export const dropped = signal(null);

/** Return the media type of a file by its name; throw a Problem for one that is no table. */
function typeOf(name) {
  const suffix = name.toLowerCase().split(".").pop();
  if (SHEETS.includes(suffix)) throw new Problem(415, { title: "This is a spreadsheet", detail: "Save it as .xlsx or as CSV and upload that file." });
  if (["gz", "zip", "zst"].includes(suffix)) throw new Problem(415, { title: "This file is compressed", detail: "Unpack it first, or upload it by curl with Content-Encoding." });
  return TYPES[suffix] ?? "text/csv";
}

/** Return the name of a dataset by that of its file. */
export const labelOf = (file) => file.name.replace(/\.[^.]*$/, "").slice(0, 128);

/** Return options as the query of an upload: lists and objects as JSON, without those that are empty. */
function queryOf(options) {
  const given = Object.entries(options).filter(([, value]) => value !== "" && value !== undefined && (typeof value !== "object" || Object.keys(value).length));
  return new URLSearchParams(given.map(([name, value]) => [name, typeof value === "object" ? JSON.stringify(value) : String(value)])).toString();
}

/** Return the part of a file that is looked at before it is uploaded: all of it, or the first lines of a long text. */
export async function partOf(file) {
  const start = file.slice(0, PART_BYTES);
  if (file.size <= WHOLE_BYTES || !BY_LINES.includes(typeOf(file.name))) return file;
  const bytes = new Uint8Array(await start.arrayBuffer());
  const isWide = bytes[0] + bytes[1] === 0xfe + 0xff; // UTF-16, whose lines end in two bytes
  return isWide ? file : file.slice(0, bytes.lastIndexOf(10) + 1);
}

/** Return what an upload of a file, or of a part of it, would make of it. */
export const preview = (file, part, options, signal) =>
  call(`/v1/datasets/preview?${queryOf(options)}`, { method: "POST", body: part, headers: { "Content-Type": typeOf(file.name) }, signal });

/** Upload a file as a dataset, and return that. */
export const send = (file, options, onProgress) =>
  upload(`/v1/datasets?${queryOf({ name: labelOf(file), ...options })}`, file, typeOf(file.name), onProgress);

/** A place to drop a file on, or to choose one: what it holds is shown before anything is stored. */
export function Drop() {
  const chooser = useRef(null);
  const [over, setOver] = useState(false);
  const looking = useAction(async (file) => {
    if (!file) return;
    typeOf(file.name);
    dropped.value = file;
    window.location.hash = "#/datasets/new";
  });
  const onDrop = (event) => {
    event.preventDefault();
    setOver(false);
    looking.run(event.dataTransfer.files[0]);
  };
  return html`
    <div class=${`drop ${over ? "over" : ""}`} onDragOver=${(event) => { event.preventDefault(); setOver(true); }} onDragLeave=${() => setOver(false)} onDrop=${onDrop}>
      <strong>Drop a table here</strong>
      <span class="soft">CSV, Excel, Parquet, Arrow, JSON, NDJSON or npy. You see how it is read, and mend it, before anything is stored.</span>
      <input ref=${chooser} type="file" hidden id="file" onChange=${(event) => { looking.run(event.target.files[0]); event.target.value = ""; }} />
      <button type="button" class="first" onClick=${() => chooser.current.click()}>Choose a file</button>
    </div>
    <${ProblemNote} problem=${looking.problem} />`;
}
