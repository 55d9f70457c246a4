// Rows of tables: reading pasted text, writing CSV, saving files, some rows to begin with.
import { call, request } from "./api.js";

/** Parse CSV or tab-separated text with a header into {columns, rows} of texts. */
export function parseRows(text) {
  const first = text.slice(0, text.search(/[\r\n]|$/));
  const delimiter = ["\t", ";", ","].find((mark) => first.includes(mark)) ?? ",";
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
  return { columns: records[0] ?? [], rows: records.slice(1) };
}

/** Return CSV text of columns and rows. */
export function csv(columns, rows) {
  const quote = (value) => {
    const text = value === null || value === undefined ? "" : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return [columns, ...rows].map((row) => row.map(quote).join(",")).join("\n") + "\n";
}

/** Save a blob as a file of the person's machine. */
export function save(name, blob) {
  const url = URL.createObjectURL(blob);
  const link = Object.assign(document.createElement("a"), { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

/** Return some rows from all parts of a version's data set as {columns, rows} of texts. */
export async function someRows(version, columns, count) {
  const path = `/v1/datasets/${version.lineage.dataset_id}`;
  const { rows: all } = await call(path);
  const found = parseRows(await (await request(`${path}/rows?limit=${count}&step=${Math.max(1, Math.floor(all / count))}`, { headers: { Accept: "text/csv" } })).text());
  const order = columns.map((name) => found.columns.indexOf(name));
  return { columns, rows: found.rows.map((row) => order.map((at) => row[at])) };
}

/** Return the text of some rows of a version's data set, to begin with; the names alone if it has none. */
export async function exampleRows(version, columns) {
  if (!version.lineage.dataset_id) return csv(columns, []);
  return csv(columns, (await someRows(version, columns, 5)).rows);
}

/** Return a text as one word of a command line. */
export const quoted = (text) => (/^[\w.=-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);
