// The verdict on a version: whether it can be used, in a sentence and a colour, and the facts that it is made of.
import { html } from "../vendor/vendor.js";

const LEVELS = { usable: ["good", "Usable"], usable_with_care: ["warn", "Usable with care"], not_usable: ["bad", "Not usable"] };
const MARKS = { true: ["good", "good"], false: ["bad", "poor"], null: ["soft", "to know"] };

/** The verdict of a version as a word. */
export function Badge({ of: { verdict } }) {
  const [kind, name] = LEVELS[verdict?.level] ?? [];
  return name ? html`<span class=${`state ${kind}`}>${name}</span>` : null;
}

/** The verdict of a version as a sentence, with its facts on demand. */
export function Verdict({ of: { verdict } }) {
  const [kind, name] = LEVELS[verdict?.level] ?? [];
  if (!name) return null;
  const [opening, ...reason] = verdict.sentence.split(": ");
  return html`<section class=${`note ${kind}`} aria-label="Verdict"><p><strong>${opening}</strong>: ${reason.join(": ")}</p>
    ${verdict.facts.length > 0 && html`<details><summary>Why</summary><ul class="marks">${verdict.facts.map(({ name: fact, good, text }) => html`<li key=${fact}>
      <span class=${`state ${MARKS[good][0]}`}>${MARKS[good][1]}</span><span>${text}</span></li>`)}</ul></details>`}</section>`;
}
