// The list of datasets.
import { html, useState } from "../vendor/vendor.js";
import { ago, bytes, number } from "./format.js";
import { SEARCH_HINT, searchOf, Tags } from "./labels.js";
import { Drop } from "./uploading.js";
import { counted, Elsewhere, Loaded, More, origin, Parts, useList } from "./widgets.js";

export function Datasets() {
  const [wanted, setWanted] = useState("");
  const loaded = useList(`/v1/datasets${searchOf(wanted)}`);
  return html`<h1>Datasets</h1><${Drop} />
    <${Elsewhere} curl=${`curl -s "${origin}/v1/datasets?name=mine" -H 'Content-Type: text/csv' --data-binary @mine.csv`}
      python=${`from densityd.client import Client\n\nwith Client("${origin}") as client:\n    dataset = client.datasets.upload("mine.csv")`}
      shell="densityd call POST /v1/datasets mine.csv -o name=mine" />
    <${Loaded} of=${loaded}>${({ items, total }) => {
      if (!items.length && !wanted) return html`<p class="empty">No dataset yet. Drop a table above.</p>`;
      return html`<section class="card">
        <p class="row"><label for="find" class="hidden-text">${SEARCH_HINT}</label>
          <input id="find" type="search" placeholder=${SEARCH_HINT} value=${wanted} onInput=${(event) => setWanted(event.target.value)} />
          <span class="soft" role="status">${counted({ items, total }, "dataset")}</span></p>
        <div class="scroll" tabindex="0" role="region" aria-label="Datasets"><table>
          <thead><tr><th scope="col">Name</th><th scope="col" class="number">Rows</th><th scope="col" class="number">Columns</th>
            <th scope="col" class="number">Size</th><th scope="col">Tags</th><th scope="col">Uploaded</th></tr></thead>
          <tbody><${Parts} of=${items}>${(dataset) => html`<tr key=${dataset.id}>
            <td><a href=${`#/datasets/${dataset.id}`}>${dataset.name ?? dataset.id}</a></td>
            <td class="number">${number(dataset.rows)}</td><td class="number">${number(dataset.column_count)}</td>
            <td class="number">${bytes(dataset.bytes)}</td><td><${Tags} tags=${dataset.tags} /></td><td>${ago(dataset.created_at)}</td></tr>`}<//></tbody>
        </table></div><${More} of=${loaded.more} total=${total} what="datasets" /></section>`;
    }}<//>`;
}
