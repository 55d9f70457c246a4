// Tables of the service: the numbers of their columns, for plots, and cells as the file has them.
import { call, request } from "./api.js";

/**
 * Numbers of the columns of a table: dates as seconds since 1970, texts and truth values as the
 * index of their level, not-a-number for gaps.
 */
class Numbers {
  #columns;
  #arrays;

  constructor(columns, arrays) {
    this.#columns = columns;
    this.#arrays = arrays;
    this.rows = arrays[0]?.length ?? 0;
  }

  /** Return the numbers of a column; none if the table lacks it. */
  of(name) {
    return this.#arrays[this.#place(name)] ?? new Float64Array();
  }

  /** Return the share of each value of a column by its text; that of gaps is under null. */
  shares(name) {
    const levels = this.#columns[this.#place(name)]?.levels ?? [];
    const texts = new Map(levels.map((level, at) => [typeof level === "number" ? level : at, String(level)]));
    if (typeof levels[0] === "string") texts.set(levels.length, OTHER);
    const shares = new Map();
    for (const value of this.of(name)) {
      const text = Number.isNaN(value) ? null : (texts.get(value) ?? String(value));
      shares.set(text, (shares.get(text) ?? 0) + 1 / this.rows);
    }
    return shares;
  }

  #place(name) {
    return this.#columns.findIndex((column) => column.name === name);
  }
}

const OTHER = "other";

/** Return the texts of the values that a column can have. */
export const levelsOf = (column) => [...column.levels.map(String), ...(column.other ? [OTHER] : [])];

/** True if cells of a column are points of a scale, dates included. */
export const isScale = (column) => !column.levels?.length && ["number", "integer", "datetime"].includes(column.type);

/** Return the path of some rows from all parts of a dataset. */
const rowsPath = ({ id, rows }, count) => `/v1/datasets/${id}/rows?limit=${count}&step=${Math.max(1, Math.floor(rows / count))}`;

/** Load the numbers of some rows from all parts of a dataset. */
export async function numbersOf(dataset, count, signal) {
  const modelled = dataset.columns.filter(({ type }) => type !== "ignored");
  return new Numbers(modelled, modelled.length ? await npy(rowsPath(dataset, count), { signal }) : []);
}

/** Load the cells of some rows from all parts of a dataset: {columns, rows}. */
export const cellsOf = (dataset, count, signal) => call(rowsPath(dataset, count), { signal });

/** Return the columns of a version with their types; plain numbers where it has none. */
export const columnsOf = (version) => version.columns.map((name, at) => version.types?.[at] ?? { name, type: "number", levels: [] });

const samplePath = (version) => `/v1/models/${version.name}:${version.version}/sample`;

/** Draw the numbers of rows of a version; json: the request, with its seed. */
export const sampledNumbers = async (version, json, signal) =>
  new Numbers(columnsOf(version), await npy(samplePath(version), { method: "POST", json, signal }));

/** Draw the cells of rows of a version: {columns, rows}. */
export const sampledCells = (version, json, signal) => call(samplePath(version), { method: "POST", json, signal });

async function npy(path, options) {
  const response = await request(path, { ...options, headers: { Accept: "application/x-npy" } });
  return npyColumns(await response.arrayBuffer());
}

/** Return the columns of an npy file of floats, row by row, as arrays of numbers. */
function npyColumns(buffer) {
  const start = 10 + new DataView(buffer).getUint16(8, true);
  const header = new TextDecoder().decode(buffer.slice(10, start));
  const [rows, width = 1] = header.match(/'shape': \(([^)]*)\)/)[1].split(",").filter((size) => size.trim()).map(Number);
  const values = new (header.includes("<f4") ? Float32Array : Float64Array)(buffer.slice(start));
  return Array.from({ length: width }, (_, column) => {
    const numbers = new Float64Array(rows);
    for (let row = 0; row < rows; row += 1) numbers[row] = values[row * width + column];
    return numbers;
  });
}
