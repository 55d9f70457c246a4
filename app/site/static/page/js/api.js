// Calls of the API: the key, problems as errors, and the events of jobs, live.
import { signal } from "../vendor/vendor.js";

const KEY = "densityd-key";

/** API key of this tab; empty where the service needs none. */
export const apiKey = signal(sessionStorage.getItem(KEY) ?? "");
/** True once the service has refused a request for want of a valid key. */
export const keyNeeded = signal(false);
/** True while the service cannot be reached. */
export const offline = signal(false);

/** Address of a path of the service, relative to the page: a proxy may have both below a path of its own. */
const here = (path) => path.replace(/^\//, "");

export function setKey(key) {
  apiKey.value = key.trim();
  keyNeeded.value = false;
  if (apiKey.value) sessionStorage.setItem(KEY, apiKey.value);
  else sessionStorage.removeItem(KEY);
}

/** A problem that the service reported, or that it could not be reached. */
export class Problem extends Error {
  constructor(status, { title, detail, type, errors, ...rest }) {
    super(detail ?? title);
    Object.assign(this, { status, title, type, errors: errors ?? [], rest });
  }
}

/** Return the response of a request; throw a Problem if it is an error. */
export async function request(path, { method = "GET", json, body, headers = {}, signal } = {}) {
  const sent = { ...headers };
  const key = apiKey.value;
  if (key) sent.Authorization = `Bearer ${key}`;
  if (json !== undefined) sent["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(here(path), {
      method,
      headers: sent,
      body: json === undefined ? body : JSON.stringify(json),
      signal,
      cache: "no-store",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    offline.value = true;
    throw new Problem(0, {
      title: "No connection",
      detail: "The service cannot be reached. The page tries again by itself.",
    });
  }
  offline.value = false;
  if (response.ok) return response;
  if (response.status === 401 && key === apiKey.value) keyNeeded.value = true;
  throw new Problem(response.status, await problemOf(response));
}

async function problemOf(response) {
  try {
    return await response.json();
  } catch {
    return { title: `${response.status} ${response.statusText}` };
  }
}

/** Return the JSON of a response; null if it has no body. */
export async function call(path, options) {
  const response = await request(path, options);
  return response.status === 204 ? null : response.json();
}

/** Return the first items of a list, at most `most`, and whether they are all: {items, isWhole}. */
export async function first(path, most, options = {}) {
  const items = [];
  let cursor = null;
  do {
    const page = await call(
      `${path}${path.includes("?") ? "&" : "?"}limit=${Math.min(200, most - items.length)}${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`,
      options,
    );
    items.push(...page.items);
    cursor = page.next_cursor;
  } while (cursor && items.length < most);
  return { items, isWhole: !cursor };
}

/** Return all items of a list, page by page. */
export const all = async (path, options) => (await first(path, Infinity, options)).items;

/** Upload a file with progress: `onProgress` gets the sent share, from 0 to 1. */
export function upload(path, file, type, onProgress) {
  return new Promise((resolve, reject) => {
    const sending = new XMLHttpRequest();
    sending.open("POST", here(path));
    sending.setRequestHeader("Content-Type", type);
    if (apiKey.value) sending.setRequestHeader("Authorization", `Bearer ${apiKey.value}`);
    sending.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    sending.onerror = () =>
      reject(new Problem(0, { detail: "The connection broke while the file was sent. Nothing was stored; try again." }));
    sending.onload = () => {
      const content = parsed(sending.responseText);
      if (sending.status < 300) resolve(content);
      else {
        if (sending.status === 401) keyNeeded.value = true;
        reject(new Problem(sending.status, content));
      }
    };
    sending.send(file);
  });
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return { detail: text.slice(0, 200) };
  }
}

/**
 * Follow the events of a job until it ends or `signal` aborts; a broken connection continues where
 * it broke. `onEvents` gets lists of {id, event, data}; `onState` gets "live" or "reconnecting".
 */
export async function follow(job, { after = 0, onEvents, onState, signal }) {
  let last = after;
  let wait = 500;
  while (!signal.aborted) {
    try {
      const response = await request(`/v1/jobs/${job}/events?after=${last}`, {
        headers: { Accept: "text/event-stream" },
        signal,
      });
      onState("live");
      wait = 500;
      let ended = false;
      for await (const events of parsedEvents(response.body)) {
        const numbered = events.filter((event) => event.id);
        if (numbered.length) {
          last = numbered.at(-1).id;
          onEvents(numbered);
        }
        ended ||= events.some((event) => event.event === "end");
      }
      if (ended) return;
    } catch (error) {
      if (signal.aborted || error.name === "AbortError") return;
      if (error.status === 404 || error.status === 401 || error.status === 403) throw error;
    }
    onState("reconnecting");
    await new Promise((resolve) => setTimeout(resolve, wait));
    wait = Math.min(wait * 2, 10000);
  }
}

async function* parsedEvents(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    const events = blocks.map(eventOf).filter((event) => event.data !== undefined);
    if (events.length) yield events;
  }
}

function eventOf(block) {
  const event = {};
  for (const line of block.split("\n")) {
    const colon = line.indexOf(":");
    if (colon < 1) continue;
    const name = line.slice(0, colon);
    const value = line.slice(colon + 1).replace(/^ /, "");
    if (name === "id") event.id = Number(value);
    else if (name === "event") event.event = value;
    else if (name === "data") event.data = JSON.parse(value);
  }
  return event;
}
