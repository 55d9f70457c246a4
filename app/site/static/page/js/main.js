// The frame of the page: navigation by the part of the address after #, the key, the theme.
import { html, render, signal, useEffect, useRef } from "../vendor/vendor.js";
import { apiKey, keyNeeded, offline, setKey } from "./api.js";
import { Compare } from "./compare.js";
import { Dataset } from "./dataset.js";
import { Datasets } from "./datasets.js";
import { keepFocus } from "./focus.js";
import { Home } from "./home.js";
import { Job } from "./job.js";
import { Jobs } from "./jobs.js";
import { Model, Models } from "./models.js";
import { NewDataset } from "./preview.js";
import { Settings } from "./settings.js";
import { canSignIn, failure, finishSignIn, signIn } from "./signing.js";
import { Train } from "./train.js";
import { Variational } from "./variational.js";
import { Field } from "./widgets.js";

const place = signal(window.location.hash);
window.addEventListener("hashchange", () => { place.value = window.location.hash; });

const THEME = "densityd-theme";
const theme = signal(localStorage.getItem(THEME) ?? "system");
const dark = window.matchMedia("(prefers-color-scheme: dark)");

function showTheme() {
  const chosen = theme.value === "system" ? (dark.matches ? "dark" : "light") : theme.value;
  document.documentElement.dataset.theme = chosen;
}

function setTheme(name) {
  theme.value = name;
  localStorage.setItem(THEME, name);
  showTheme();
}

dark.addEventListener("change", showTheme);
showTheme();

// Parts of the address, and what they show; what is no name or id, such as `..`, would be another path of the API. `title` is read out when the view changes.
const VIEWS = [
  [/^$/, () => ["Start", html`<${Home} />`]],
  [/^datasets$/, () => ["Datasets", html`<${Datasets} />`]],
  [/^datasets\/new$/, () => ["New dataset", html`<${NewDataset} />`]],
  [/^datasets\/(\w[\w.-]*)$/, (id) => ["Dataset", html`<${Dataset} key=${id} id=${id} />`]],
  [/^datasets\/(\w[\w.-]*)\/train$/, (id) => ["Train a model", html`<${Train} key=${id} id=${id} />`]],
  [/^jobs$/, () => ["Jobs", html`<${Jobs} />`]],
  [/^jobs\/variational$/, () => ["Fit a flow to a density", html`<${Variational} />`]],
  [/^jobs\/(\w[\w.-]*)(?:\/(\d+))?$/, (id, row) => ["Job", html`<${Job} key=${id} id=${id} row=${row && Number(row)} />`]],
  [/^models$/, () => ["Models", html`<${Models} />`]],
  [/^models\/(\w[\w.-]*)\/compare(?:\/([\d,]+))?$/, (name, chosen) => ["Compare versions", html`<${Compare} key=${`${name} ${chosen}`} name=${name} chosen=${chosen ? chosen.split(",").map(Number) : []} />`]],
  [/^models\/(\w[\w.-]*)\/(\d+)(?:\/(\w+)(?:\/(\d+))?)?$/, (name, version, tab, row) => [`Model ${name}`, html`<${Model} key=${`${name}:${version}`} name=${name} version=${Number(version)} tab=${tab} row=${row && Number(row)} />`]],
  [/^models\/(\w[\w.-]*)$/, (name) => [`Model ${name}`, html`<${Model} key=${name} name=${name} />`]],
  [/^settings$/, () => ["Settings", html`<${Settings} theme=${theme} setTheme=${setTheme} />`]],
];

const TABS = [["datasets", "Datasets"], ["jobs", "Jobs"], ["models", "Models"]];

function App() {
  const path = place.value.replace(/^#\/?/, "");
  const found = VIEWS.map(([pattern, show]) => [path.match(pattern), show]).find(([match]) => match);
  const [title, view] = found ? found[1](...found[0].slice(1)) : ["Not found", html`<${NotFound} />`];
  const main = useRef(null);
  const seen = useRef(null);
  useEffect(() => {
    document.title = `${title} · densityd`;
    const view = path.replace(/(\/unusual|^jobs\/\w+)\/\d+$/, "$1"); // a row that is opened in a list is no other view
    const before = seen.current;
    seen.current = view;
    if (before === null || before === view) return;
    window.scrollTo(0, 0);
    main.current.focus();
  }, [path, title]);
  return html`
    <a class="skip" href="#main" onClick=${(event) => { event.preventDefault(); main.current.focus(); }}>Skip to the content</a>
    ${offline.value && html`<p class="banner" role="status">The service cannot be reached. What you see may be old; the page tries again by itself.</p>`}
    <header class="bar">
      <a class="brand" href="#/"><img src="static/icon.svg" alt="" />densityd</a>
      <nav aria-label="Main">${TABS.map(([to, name]) => html`<a key=${to} href=${`#/${to}`} aria-current=${path.split("/")[0] === to ? "page" : undefined}>${name}</a>`)}
        <a href="guide/">Guide</a>
        <a href="docs">API</a></nav>
      <a href="#/settings" aria-current=${path === "settings" ? "page" : undefined}>Settings</a>
    </header>
    <main id="main" ref=${main} tabindex="-1">${keyNeeded.value ? html`<${KeyForm} />` : view}</main>`;
}

function KeyForm() {
  const send = (event) => {
    event.preventDefault();
    setKey(new FormData(event.target).get("key"));  // the view is shown again, and asks with it
  };
  const again = apiKey.value ? "The key was refused" : "This service needs a key";
  return html`<form class="card" onSubmit=${send}>
    <h1>${canSignIn ? "Sign in, or give a key" : again}</h1>
    ${failure.value && html`<p class="note bad" role="alert">${failure.value}</p>`}
    ${canSignIn && html`<p><button type="button" class="first" onClick=${signIn}>Sign in</button></p>`}
    <${Field} id="key" label="API key" hint="An administrator makes one with: densityd keys create. It stays in this tab alone.">
      <input id="key" name="key" type="password" autocomplete="off" required aria-describedby="key-hint" />
    <//>
    <button class=${canSignIn ? "" : "first"}>Use this key</button>
  </form>`;
}

const NotFound = () => html`<div class="card"><h1>Nothing is here</h1><p>The address names no view of this page. <a href="#/">Go to the start.</a></p></div>`;

await finishSignIn();
place.value = window.location.hash; // that of before the sign-in
const app = document.getElementById("app");
render(html`<${App} />`, app);
keepFocus(app);
