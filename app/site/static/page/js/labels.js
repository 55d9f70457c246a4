// Descriptions and tags: shown, edited, searched by.
import { html, useState } from "../vendor/vendor.js";
import { call } from "./api.js";
import { Field, ProblemNote, useAction, useFocusOn } from "./widgets.js";

/** Return the query of a search text: `name:value` and `name:` are tags, else the beginning of a name. */
export function searchOf(text) {
  const query = new URLSearchParams();
  for (const word of text.trim().split(/\s+/).filter(Boolean)) {
    if (word.includes(":")) query.append("tag", word.endsWith(":") ? word.slice(0, -1) : word);
    else query.set("name_prefix", word);
  }
  return query.size ? `?${query}` : "";
}

export const SEARCH_HINT = "The beginning of a name, or tags as name:value";

/** Tags, in a line. */
export const Tags = ({ tags }) => Object.entries(tags ?? {}).map(([name, value]) => html`<span key=${name} class="tag">${value ? `${name}: ${value}` : name}</span>`);

/** Description and tags of a resource, with a form to change them. */
export function Labels({ path, of, again, what = "" }) {
  const id = what ? `${what}-` : "";
  const [text, setText] = useState(null);
  const [description, setDescription] = useState("");
  const focused = useFocusOn(text === null);
  const edit = () => {
    setDescription(of.description ?? "");
    setText(Object.entries(of.tags ?? {}).map(([name, value]) => `${name}: ${value}`).join("\n"));
  };
  const save = useAction(async () => {
    const tags = Object.fromEntries(text.split("\n").filter((line) => line.trim()).map((line) => {
      const [name, ...value] = line.split(":");
      return [name.trim(), value.join(":").trim()];
    }));
    for (const name of Object.keys(of.tags ?? {})) if (!(name in tags)) tags[name] = null;
    await call(path, { method: "PATCH", json: { description: description.trim() || null, tags } });
    setText(null);
    again();
  });
  if (text === null) {
    return html`<div class="labels">${of.description && html`<p>${of.description}</p>`}
      <p class="row"><${Tags} tags=${of.tags} />
        <button type="button" class="quiet" ref=${focused} onClick=${edit}>${of.description || Object.keys(of.tags ?? {}).length ? "Change description and tags" : `Describe or tag ${what && `the ${what}`}`}</button></p></div>`;
  }
  return html`<form class="card" onSubmit=${(event) => { event.preventDefault(); save.run(); }}>
    <${Field} id=${`${id}description`} label="Description">
      <textarea id=${`${id}description`} ref=${focused} rows="3" maxlength="4000" value=${description} onInput=${(event) => setDescription(event.target.value)}></textarea><//>
    <${Field} id=${`${id}tags`} label="Tags" hint="One in a line, as name: value.">
      <textarea id=${`${id}tags`} rows="3" value=${text} aria-describedby=${`${id}tags-hint`} onInput=${(event) => setText(event.target.value)}></textarea><//>
    <p class="row"><button class="first" disabled=${save.busy}>Save</button><button type="button" onClick=${() => setText(null)}>Leave as it was</button></p>
    <${ProblemNote} problem=${save.problem} /></form>`;
}
