// Parts that several views use.
import { html, useEffect, useLayoutEffect, useRef, useState } from "../vendor/vendor.js";
import { call, first, Problem } from "./api.js";
import { number, plural } from "./format.js";

const RETRY_MS = 3000; // while the service cannot be reached

/** Load something when `keys` change; return {value, problem, loading, again}. */
export function useLoaded(load, keys) {
  const [state, setState] = useState({ loading: true });
  const [round, setRound] = useState(0);
  useEffect(() => {
    const stop = new AbortController();
    setState((before) => ({ ...before, loading: true, problem: null }));
    load(stop.signal).then(
      (value) => stop.signal.aborted || setState({ value, loading: false }),
      (problem) => stop.signal.aborted || setState((before) => ({ ...before, problem, loading: false })),
    );
    return () => stop.abort();
  }, [...keys, round]);
  const again = () => setRound((before) => before + 1);
  useEffect(() => {
    if (state.problem?.status !== 0) return undefined;
    const timer = setTimeout(again, RETRY_MS);
    return () => clearTimeout(timer);
  }, [state.problem]);
  return { ...state, again };
}

/** Load JSON from a path when it changes. */
export const useJson = (path) => useLoaded((signal) => call(path, { signal }), [path]);

/** Call `act` every `seconds` while `active` and the page is seen; not while it loads, which `act` would begin anew. */
export function useEvery(seconds, active, act) {
  const latest = useRef(act);
  latest.current = act;
  useEffect(() => {
    if (!active) return undefined;
    const timer = setInterval(() => document.visibilityState === "visible" && latest.current(), 1000 * seconds);
    return () => clearInterval(timer);
  }, [seconds, active]);
}

/** Show what was loaded, or that it loads, or why it cannot be; `title` is the heading of a view until then. */
export function Loaded({ of, title, children }) {
  if (of.value !== undefined) return html`${of.problem && html`<${ProblemNote} problem=${of.problem} again=${of.again} />`}${children(of.value)}`;
  const heading = title && html`<h1>${title}</h1>`;
  if (of.problem) return html`${heading}<${ProblemNote} problem=${of.problem} again=${of.again} />`;
  return html`${heading}<p class="loading pulse" role="status">Loading…</p>`;
}

/** Show an error with its fields and what one can do. */
export function ProblemNote({ problem, again }) {
  if (!problem) return null;
  const known = problem instanceof Problem;
  return html`<div class="note bad" role="alert">
    <strong>${known ? problem.title : "Something in the page failed"}</strong>
    ${problem.message !== problem.title && html`<p>${withCode(problem.message)}</p>`}
    ${known && problem.errors.length > 0 && html`<ul>
      ${problem.errors.slice(0, 20).map((error) => html`<li>${[error.pointer ?? error.parameter ?? error.column, error.detail].filter(Boolean).join(": ")}</li>`)}
    </ul>`}
    <p class="row">
      ${again && html`<button type="button" onClick=${again}>Try again</button>`}
      ${known && problem.type?.includes("/problems/") && html`<a href=${problem.type.replace(/^.*\/(?=problems\/)/, "")}>What this means</a>`}
    </p>
  </div>`;
}

/** Do something once at a time: {run, busy, problem}. */
export function useAction(act) {
  const [state, setState] = useState({ busy: false, problem: null });
  const run = async (...values) => {
    setState({ busy: true, problem: null });
    try {
      const result = await act(...values);
      setState({ busy: false, problem: null });
      return result;
    } catch (problem) {
      setState({ busy: false, problem });
      return undefined;
    }
  };
  return { ...state, run };
}

/** A ref of what gets the focus when `value` changes. */
export function useFocusOn(value) {
  const target = useRef(null);
  const before = useRef(value);
  useLayoutEffect(() => {
    if (before.current === value) return;
    before.current = value;
    target.current?.focus();
  }, [value]);
  return target;
}

/** A button that asks once more before it does harm; Escape is no. */
export function Confirm({ label, question, act, busy, kind = "" }) {
  const [asked, setAsked] = useState(false);
  const focused = useFocusOn(asked);
  if (!asked) return html`<button type="button" class=${`harm ${kind}`} ref=${focused} disabled=${busy} onClick=${() => setAsked(true)}>${label}</button>`;
  return html`<span class="row" role="group" aria-label=${question} onKeyDown=${(event) => event.key === "Escape" && setAsked(false)}>
    <span>${question}</span>
    <button type="button" class="harm" ref=${focused} onClick=${() => { setAsked(false); act(); }}>Yes, ${label.toLowerCase()}</button>
    <button type="button" onClick=${() => setAsked(false)}>No</button>
  </span>`;
}

export const State = ({ of }) => html`<span class=${`state ${of}`}>${of}</span>`;

/** A labelled field; `children` is the control, whose id must be `id`. */
export const Field = ({ id, label, hint, wrong, children }) => html`<div class="field">
  <label for=${id}>${label}</label>
  ${hint && html`<p class="hint" id=${`${id}-hint`}>${hint}</p>`}
  ${children}
  ${wrong && html`<p class="wrong" role="alert">${wrong}</p>`}
</div>`;

/** The same action on a command line, in Python and by HTTP, to copy. */
export function Elsewhere({ curl, python, shell }) {
  const ways = [["curl", curl], ["Python", python], ["Command line", shell]].filter(([, text]) => text);
  return html`<details>
    <summary>Do the same with ${ways.map(([name]) => name).join(", ")}</summary>
    ${ways.map(([name, text]) => html`<${Snippet} key=${name} name=${name} text=${text} />`)}
  </details>`;
}

/** Button that copies a text. */
export function CopyButton({ text, label = "Copy", name }) {
  const [copied, setCopied] = useState(false);
  const copy = async () => {
    await navigator.clipboard.writeText(text);
    setCopied(true);
    setTimeout(() => setCopied(false), 2000);
  };
  return html`<button type="button" onClick=${copy} aria-label=${name}>${copied ? "Copied" : label}</button>`;
}

const Snippet = ({ name, text }) => html`<p class="label">${name}</p>
    <div class="snippet">
      <pre tabindex="0" role="group" aria-label=${name}>${text}</pre>
      <${CopyButton} text=${text} name=${`Copy ${name}`} />
    </div>`;

/** Show a part of a long list: {shown, showMore}. */
export function useMore(first, step = first) {
  const [shown, setShown] = useState(first);
  return { shown, showMore: () => setShown(shown + step) };
}

/** Button for the rest of a list of which a part is shown. `total` is null where it is not known. */
export const More = ({ of, total, what }) => (total === null || total > of.shown) && html`<p class="row"><button type="button" onClick=${of.showMore}>Show more</button>
  <span class="soft">${number(of.shown)} ${total === null ? "" : `of ${number(total)} `}${what} are shown</span></p>`;

/** Show the items of a long list in parts, a frame apart, so that no frame waits for all; `children` shows one. */
export function Parts({ of: items, size = 25, children: show }) {
  const starts = Array.from({ length: Math.ceil(items.length / size) }, (_, part) => part * size);
  return starts.map((start, part) => html`<${Part} key=${start} after=${part} items=${items.slice(start, start + size)} show=${show} />`);
}

function Part({ after, items, show }) {
  const [waits, setWaits] = useState(after);
  useEffect(() => {
    if (waits === 0) return undefined;
    let left = after;
    const next = () => {
      left -= 1;
      if (left === 0) setWaits(0);
      else frame = requestAnimationFrame(next);
    };
    let frame = requestAnimationFrame(next);
    return () => cancelAnimationFrame(frame);
  }, []);
  return waits === 0 ? items.map(show) : null;
}

/** Load a list, more of it with each `showMore`: the value is {items, total}, null: unknown. */
export function useList(path) {
  const more = useMore(200);
  const loaded = useLoaded(async (signal) => {
    const { items, isWhole } = await first(path, more.shown, { signal });
    return { items, total: isWhole ? items.length : null };
  }, [path, more.shown]);
  return { ...loaded, more };
}

/** Return how many things a list has, as far as it is loaded. */
export const counted = ({ items, total }, noun) => (total === null ? `the first ${plural(items.length, noun)}` : plural(total, noun));

/** A table of rows; long ones show a part and a button for more. */
export function DataTable({ caption, columns, rows, first }) {
  const more = useMore(first, 1000);
  return html`<div class="scroll" tabindex="0" role="region" aria-label=${caption}>
      <table>
        <caption>${caption}</caption>
        <thead><tr>${columns.map((name, at) => html`<th key=${at} scope="col">${name}</th>`)}</tr></thead>
        <tbody><${Parts} of=${rows.slice(0, more.shown)} size=${Math.ceil(400 / columns.length)}>${(row, number) => html`<tr key=${number}>${row.map((value, at) => html`<td key=${at}>${value}</td>`)}</tr>`}<//></tbody>
      </table>
    </div>
    <${More} of=${more} total=${rows.length} what="rows" />`;
}

/** Return a text with what is between grave accents as code. */
const withCode = (text) => text.split("`").map((part, at) => (at % 2 ? html`<code>${part}</code>` : part));

/** What a training says of its model to people; an imported file may have anything in its place. */
export const InWords = ({ of }) => Array.isArray(of) && of.length > 0 && html`<div class="note"><strong>In words</strong>
  <ul>${of.map((text) => html`<li key=${text}>${withCode(String(text))}</li>`)}</ul></div>`;

export const Crumbs = ({ path }) => html`<nav class="crumbs" aria-label="Breadcrumb">
  ${path.map(([name, href], at) => html`${at > 0 && " / "}<a key=${at} href=${href}>${name}</a>`)}
</nav>`;

export const origin = `${window.location.origin}${window.location.pathname.replace(/\/$/, "")}`;
