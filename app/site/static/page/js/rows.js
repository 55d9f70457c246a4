// Rows of tables: reading pasted text, writing CSV, saving files, some rows to begin with.
import { call, request } from "./api.js";

const LOOKED_AT = 50; // lines
const LARGEST = 20e6; // bytes

/** Return the text of a file: UTF-8, UTF-16 with a byte order mark, or else Windows-1252. */
export async function textOf(file) {
  const bytes = new Uint8Array(await file.slice(0, LARGEST).arrayBuffer());
  const mark = bytes[0] * 256 + bytes[1];
  if (mark === 0xfffe || mark === 0xfeff) return new TextDecoder(mark === 0xfffe ? "utf-16le" : "utf-16be").decode(bytes);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes, { stream: file.size > LARGEST }); // the last character may be cut
  } catch {
    return new TextDecoder("windows-1252").decode(bytes);
  }
}

/** Return the number that comes most often, 0 left out. */
function usual(counts) {
  const times = new Map();
  for (const count of counts) if (count) times.set(count, (times.get(count) ?? 0) + 1);
  return [...times].reduce((one, other) => (other[1] > one[1] ? other : one), [0, 0]);
}

/** Return the separator that most of the first lines have equally often; a comma if none does. */
function delimiterOf(text) {
  const lines = text.split(/\r\n|\r|\n/, LOOKED_AT).filter((line) => line.trim());
  const share = (mark) => usual(lines.map((line) => line.split(mark).length - 1))[1] / lines.length;
  return ["\t", ";", "|", ","].find((mark) => share(mark) > 0.5) ?? ["\t", ";", ","].find((mark) => lines[0]?.includes(mark)) ?? ",";
}

/** Return names of columns as the service mends them: no line ends, x3 for an empty one, a_2 for the second a. */
function mendedNames(names) {
  const clean = names.map((name) => name.normalize("NFC").replaceAll(/[\r\n\t]/g, " ").trim());
  const taken = new Set(clean.filter(Boolean));
  const seen = new Set();
  return clean.map((name, at) => {
    const wanted = name || `x${at + 1}`;
    const isFree = name ? !seen.has(name) : !taken.has(wanted);
    let unique = wanted;
    for (let count = 2; unique === wanted ? !isFree : taken.has(unique); count += 1) unique = `${wanted}_${count}`;
    seen.add(unique);
    taken.add(unique);
    return unique;
  });
}

/** Parse CSV or the like with a header into {columns, rows} of texts; lines of a title above the header are left out. */
export function parseRows(text) {
  const delimiter = delimiterOf(text);
  const records = [];
  let record = [];
  let value = "";
  let quoted = false;
  const endCell = () => {
    record.push(value);
    value = "";
  };
  const endRecord = () => {
    endCell();
    if (record.length > 1 || record[0].trim()) records.push(record);
    record = [];
  };
  for (let at = 0; at < text.length; at += 1) {
    const sign = text[at];
    if (quoted) {
      if (sign !== '"') value += sign;
      else if (text[at + 1] === '"') {
        value += '"';
        at += 1;
      } else quoted = false;
    } else if (sign === '"' && !value) quoted = true;
    else if (sign === delimiter) endCell();
    else if (sign === "\n") endRecord();
    else if (sign !== "\r") value += sign;
  }
  if (value || record.length) endRecord();
  const [width] = usual(records.slice(0, LOOKED_AT).map((found) => found.length));
  // Names of rows may have no name.
  const header = Math.max(0, records.findIndex((found) => found.length >= (width > 2 ? width - 1 : width)));
  return { columns: mendedNames(records[header] ?? []), rows: records.slice(header + 1) };
}

/** Return CSV text of columns and rows. */
export function csv(columns, rows) {
  const quote = (value) => {
    const text = value === null || value === undefined ? "" : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return [columns, ...rows].map((row) => row.map(quote).join(",")).join("\n") + "\n";
}

/** Return rows of texts as a body of JSON, in which a row may be empty; a model of plain numbers takes numbers alone. */
export function rowsOf(version, columns, rows) {
  const value = (text) => (text === null || text === undefined || text === "" ? null : version.types ? text : Number(text));
  return { columns, rows: rows.map((row) => columns.map((_, at) => value(row[at]))) };
}

/** Save a blob as a file of the person's machine. */
export function save(name, blob) {
  const url = URL.createObjectURL(blob);
  const link = Object.assign(document.createElement("a"), { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

/** Return some rows from all parts of a version's dataset as {columns, rows} of texts. */
async function someRows(version, columns, count) {
  const path = `/v1/datasets/${version.lineage.dataset_id}`;
  const { rows: all } = await call(path);
  const found = parseRows(await (await request(`${path}/rows?limit=${count}&step=${Math.max(1, Math.floor(all / count))}`, { headers: { Accept: "text/csv" } })).text());
  // A name that looks like a formula has an apostrophe before it in CSV.
  const order = columns.map((name) => found.columns.findIndex((other) => other === name || other === `'${name}`));
  return { columns, rows: found.rows.map((row) => order.map((at) => row[at])) };
}

/** Return the text of some rows of a version's dataset, to begin with; the names alone if it has none. */
export async function exampleRows(version, columns) {
  if (!version.lineage.dataset_id) return csv(columns, []);
  return csv(columns, (await someRows(version, columns, 5)).rows);
}

/** Return a text as one word of a command line. */
export const quoted = (text) => (/^[\w.=-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);
