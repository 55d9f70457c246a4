// Zooming and moving a plot, by keys and by buttons.
import { html } from "../vendor/vendor.js";

/** Return limits that are so many times as far apart around a place between them, from 0 to 1. */
export function zoomed([low, high], factor, at = 0.5) {
  const middle = low + at * (high - low);
  return [middle - (middle - low) * factor, middle + (high - middle) * factor];
}

/** Return limits moved by a share of their distance. */
export const moved = ([low, high], share) => [low + share * (high - low), high + share * (high - low)];

export const ZOOM_KEYS = "plus and minus zoom, arrows move, 0 shows all";

/** Return the handler of keys of a plot: `zoom(factor)`, `move(right, up)` and `showAll()` act on it. */
export function zoomByKeys({ zoom, move, showAll }) {
  const keys = {
    "+": () => zoom(1 / 1.3), "-": () => zoom(1.3), 0: showAll,
    ArrowLeft: () => move(-0.1, 0), ArrowRight: () => move(0.1, 0), ArrowUp: () => move(0, 0.1), ArrowDown: () => move(0, -0.1),
  };
  keys["="] = keys["+"]; // the same key without shift
  return (event) => {
    if (!keys[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    keys[event.key]();
  };
}

export const ZoomButtons = ({ zoom, showAll }) => html`<p class="row">
  <button type="button" onClick=${() => zoom(1 / 1.5)}>Zoom in</button>
  <button type="button" onClick=${() => zoom(1.5)}>Zoom out</button>
  <button type="button" onClick=${showAll}>Show all</button></p>`;
