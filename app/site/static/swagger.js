"use strict";

// Every operation may answer with about ten errors, which all look alike: they are folded away.
function foldErrors() {
  return {
    wrapComponents: {
      responses: (Responses, { React }) => (props) => {
        const [open, setOpen] = React.useState(false);
        const good = props.responses.filterNot((_, status) => /^[45]/.test(status));
        const count = props.responses.size - good.size;
        const toggle = React.createElement(
          "button",
          { className: "btn errors-toggle", "aria-expanded": open, onClick: () => setOpen(!open) },
          open ? "Hide the errors" : `Show ${count} errors`,
        );
        return React.createElement(
          "div",
          null,
          React.createElement(Responses, { ...props, responses: open ? props.responses : good }),
          count ? toggle : null,
        );
      },
    },
  };
}

// Swagger UI parses the whole document again for every operation that is opened, and copies all that
// were opened before: seconds. The references of this document are local, and its operations
// inherit nothing, so that putting in what is referred to is enough.
function resolveQuickly() {
  const requestResolvedSubtree = (_, { specActions, specSelectors }) => {
    let known = null;
    let document = null;
    return (path) => {
      const read = specSelectors.specJson();
      if (known !== read) [known, document] = [read, read.toJS()];
      specActions.updateResolvedSubtree(path, resolved(at(document, path), document, []));
    };
  };
  return { statePlugins: { spec: { wrapActions: { requestResolvedSubtree } } } };
}

const at = (document, path) => path.reduce((part, key) => part?.[key], document) ?? null;

/** Return a part of a document with what its references name; a reference to itself stays. */
function resolved(part, document, within) {
  if (typeof part !== "object" || part === null) return part;
  if (Array.isArray(part)) return part.map((one) => resolved(one, document, within));
  const name = part.$ref;
  if (typeof name === "string") {
    if (within.includes(name)) return part;
    return resolved(at(document, name.split("/").slice(1)), document, [...within, name]);
  }
  return Object.fromEntries(Object.entries(part).map(([key, value]) => [key, resolved(value, document, within)]));
}

// Ids in the examples stand for the newest thing of their kind that a response has shown on this page,
// so that what is uploaded can be trained on without copying its id.
const EXAMPLE_IDS = /\b(ds|job|key|wh)_0f3c5f4e7d0c4d5b9b8f1e2a3c4d5e6f\b/g;
const seen = {};

function withSeenIds(request) {
  const fill = (text) => text.replace(EXAMPLE_IDS, (id, kind) => seen[kind] ?? id);
  if (typeof request.url === "string") request.url = fill(request.url);
  if (typeof request.body === "string") request.body = fill(request.body);
  return request;
}

function remember(response) {
  const shown = response.ok && (response.body?.id ?? response.body?.items?.[0]?.id);
  const kind = typeof shown === "string" && shown.match(/^(ds|job|key|wh)_/);
  if (kind) seen[kind[1]] = shown;
  return response;
}

const ui = SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  docExpansion: "none",
  onComplete: () => ui.layoutActions.show(["operations-tag", "scores"], true), // the others are folded
  displayRequestDuration: true,
  filter: true,
  plugins: [foldErrors, resolveQuickly],
  requestInterceptor: withSeenIds,
  responseInterceptor: remember,
  showExtensions: false,
  tryItOutEnabled: false,
  validatorUrl: null, // the badge would ask a server elsewhere
});
