// Tables of the service: cells as the file has them, and the numbers of scales, dates included, for plots.
import { call, request } from "./api.js";

/** Rows with their cells by column, and the numbers of the columns that are modelled. */
class Table {
  constructor(columns, rows, numbered, numbers) {
    Object.assign(this, { columns, rows, numbered, columnsOfNumbers: numbers });
  }

  /** Return the cells of a column; null for gaps. */
  cells(name) {
    const at = this.columns.indexOf(name);
    return this.rows.map((row) => row[at]);
  }

  /** Return the numbers of a column, dates as seconds since 1970; not-a-number for gaps. */
  numbers(name) {
    return this.columnsOfNumbers[this.numbered.indexOf(name)] ?? new Float64Array();
  }
}

/** True if cells of a column are points of a scale, dates included. */
export const isScale = (column) => !column.levels?.length && ["number", "integer", "datetime"].includes(column.type);

/** Load some rows from all parts of a data set. */
export async function rowsOf(dataset, count, signal) {
  const step = Math.max(1, Math.floor(dataset.rows / count));
  const numbered = dataset.columns.filter(({ type }) => type !== "ignored").map(({ name }) => name);
  return loaded(`/v1/datasets/${dataset.id}/rows?limit=${count}&step=${step}`, numbered, { signal });
}

/** Draw rows of a version; json: the request, whose seed is given. */
export const samplesOf = (version, reference, json, signal) => loaded(`/v1/models/${reference}/sample`, version.columns, { method: "POST", json, signal });

async function loaded(path, numbered, options) {
  const [{ columns, rows }, numbers] = await Promise.all([call(path, options), numbered.length ? numbersAt(path, options) : []]);
  return new Table(columns, rows, numbered, numbers);
}

async function numbersAt(path, options) {
  const response = await request(path, { ...options, headers: { Accept: "application/x-npy" } });
  return npyColumns(await response.arrayBuffer());
}

/** Return the columns of an npy file of floats, row by row, as arrays of numbers. */
function npyColumns(buffer) {
  const start = 10 + new DataView(buffer).getUint16(8, true);
  const header = new TextDecoder().decode(buffer.slice(10, start));
  const [rows, width = 1] = header.match(/'shape': \(([^)]*)\)/)[1].split(",").filter((size) => size.trim()).map(Number);
  const values = new (header.includes("<f4") ? Float32Array : Float64Array)(buffer.slice(start));
  return Array.from({ length: width }, (_, column) => Float64Array.from({ length: rows }, (_row, row) => values[row * width + column]));
}
