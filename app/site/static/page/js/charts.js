// Plots: curves by uPlot; histograms, bars and quantiles as SVG.
import { html, uPlot, useLayoutEffect, useMemo, useRef } from "../vendor/vendor.js";
import { number, percent, plural } from "./format.js";
import { finite, limits, quantile, scaleOf } from "./scales.js";
import { moved, ZOOM_KEYS, ZoomButtons, zoomByKeys, zoomed } from "./zoom.js";

const WIDTH = 320;
const HEIGHT = 150;
const LEFT = 8;
const BOTTOM = 18;
const HALF_LETTER = 3;

// Steps between the names of epochs and iterations, which are whole.
const WHOLE_STEPS = [0, 1, 2, 3, 4, 5, 6].flatMap((power) => [1, 2, 5].map((step) => step * 10 ** power));

/** Return the value of a colour of the page. */
export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/**
 * Curves over the same x, updated without drawing all again; the part that is shown stays.
 * series: [{label, values, stroke (CSS variable), width}], values may have null for no value.
 */
export function Curve({ label, x, xLabel, yLabel, series, summary }) {
  const box = useRef(null);
  const plot = useRef(null);
  const shown = useRef(null); // limits of x while a part is shown
  const data = [x, ...series.map((one) => one.values)];
  const latest = useRef(data);
  latest.current = data;
  useLayoutEffect(() => {
    const axis = (text) => ({ label: text, stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 } });
    const make = () => {
      plot.current?.destroy();
      plot.current = new uPlot(
        {
          width: box.current.clientWidth,
          height: 300,
          scales: { x: { time: false } },
          axes: [{ ...axis(xLabel), incrs: WHOLE_STEPS }, axis(yLabel)],
          cursor: { drag: { x: true, y: false } },
          series: [
            { label: xLabel, value: (_, value) => number(value) },
            ...series.map((one) => ({
              label: one.label,
              stroke: colour(one.stroke),
              width: one.width ?? 2,
              dash: one.dash,
              points: { show: false },
              value: (_, value) => (value === null ? "–" : value.toFixed(3)),
            })),
          ],
          hooks: { drawClear: [(made) => thin(made, series)], setScale: [(made, key) => { if (key === "x") shown.current = partOf(made.scales.x, latest.current[0]); }] },
        },
        latest.current,
        box.current,
      );
    };
    make();
    const sizes = new ResizeObserver(() => plot.current.setSize({ width: box.current.clientWidth, height: 300 }));
    sizes.observe(box.current);
    const theme = new MutationObserver(make);
    theme.observe(document.documentElement, { attributeFilter: ["data-theme"] });
    return () => {
      sizes.disconnect();
      theme.disconnect();
      plot.current.destroy();
      plot.current = null;
    };
  }, [series.length]);
  useLayoutEffect(() => {
    const part = shown.current;
    plot.current.setData(data, !part);
    if (part) plot.current.setScale("x", part);
  }, [x.length]);
  const show = ([min, max]) => plot.current.setScale("x", { min, max });
  const now = () => [plot.current.scales.x.min, plot.current.scales.x.max];
  const zoom = (factor) => show(zoomed(now(), factor));
  const showAll = () => show([x[0], x.at(-1)]);
  const move = (right) => show(moved(now(), right));
  return html`<figure class="curve">
    <div ref=${box} tabindex="0" role="img" aria-label=${`${label}; ${ZOOM_KEYS}`} onKeyDown=${zoomByKeys({ zoom, move, showAll })}></div>
    <${ZoomButtons} zoom=${zoom} showAll=${showAll} />
    <figcaption class="hidden-text">${summary}</figcaption>
  </figure>`;
}

/**
 * Draw lines of many points a pixel wide and without dashes: a wide one takes its browser fifteen times as long, more
 * than a frame, and shows no more.
 */
function thin(plot, series) {
  const [start, end] = plot.series[0].idxs;
  const isDense = end - start > plot.over.clientWidth / 2;
  series.forEach(({ width = 2, dash }, at) => Object.assign(plot.series[at + 1], isDense ? { width: 1, dash: undefined } : { width, dash }));
}

/** Return the limits of a scale; null if it shows all. */
const partOf = ({ min, max }, x) => (min <= x[0] && max >= x.at(-1) ? null : { min, max });

function Axis({ low, high, at, scale, count }) {
  let end = 0; // of the name before
  return html`<line class="axis" x1=${LEFT} x2=${WIDTH - LEFT} y1=${HEIGHT - BOTTOM} y2=${HEIGHT - BOTTOM} />
    ${scale.ticks(low, high, count).map(([value, name]) => {
      const half = name.length * HALF_LETTER; // so that names at the ends are whole
      const x = Math.min(Math.max(at(value), half), WIDTH - half);
      if (x - half < end) return null;
      end = x + half + HALF_LETTER;
      return html`<text key=${value} x=${x} y=${HEIGHT - 5} text-anchor="middle">${name}</text>`;
    })}`;
}

/** Return the scale of a column, and its sorted places on it of data and samples. */
function scaled(data, model, dates) {
  const scale = scaleOf(finite(data.length ? data : model), dates);
  return { scale, sortedData: finite(data.map(scale.to)), sortedModel: finite(model.map(scale.to)) };
}

/** Histogram of a column: data as filled bars, samples of the model as a line. */
export const Histogram = ({ name, data, model, dates = false }) => useMemo(() => histogram(name, data, model, dates), [name, data, model, dates]);

const BINS = 36;

function histogram(name, data, model, dates) {
  const { scale, sortedData, sortedModel } = scaled(data ?? [], model ?? [], dates);
  const [low, high] = limits(sortedData, sortedModel);
  const at = (value) => LEFT + ((value - low) / (high - low)) * (WIDTH - 2 * LEFT);
  const counted = (values) => {
    const counts = new Array(BINS).fill(0);
    for (const value of values) {
      const bin = Math.floor(((value - low) / (high - low)) * BINS);
      if (bin >= 0 && bin < BINS) counts[bin] += 1 / values.length;
    }
    return counts;
  };
  const ofData = counted(sortedData);
  const ofModel = counted(sortedModel);
  const top = Math.max(...ofData, ...ofModel, 1e-12);
  const y = (share) => HEIGHT - BOTTOM - (share / top) * (HEIGHT - BOTTOM - 8);
  const width = (WIDTH - 2 * LEFT) / BINS;
  const line = ofModel.map((share, bin) => `${bin ? "L" : "M"}${LEFT + bin * width},${y(share)}h${width}`).join("");
  const bars = ofData.map((share, bin) => (share > 0 ? `M${LEFT + bin * width},${y(0)}V${y(share)}h${width - 0.6}V${y(0)}z` : "")).join("");
  return html`<svg viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label=${`Histogram of ${name}`}>
    <path class="data" d=${bars} />
    ${sortedModel.length > 0 && html`<path class="model" d=${line} />`}
    <${Axis} low=${low} high=${high} at=${at} scale=${scale} count=${dates ? 3 : 4} />
  </svg>`;
}

/** Shares of the levels of a column, of the data and of samples; levels: [{name, data, model, told}], of which `told` is written. */
export function Levels({ name, levels }) {
  const most = 12;
  const shown = levels.slice(0, most);
  const top = Math.max(...levels.flatMap(({ data, model }) => [data ?? 0, model ?? 0]), 1e-9);
  const height = shown.length * 24 + 4;
  const both = levels.some(({ data }) => data !== undefined) && levels.some(({ model }) => model !== undefined);
  return html`<svg viewBox=${`0 0 ${WIDTH} ${height}`} role="img" aria-label=${`Shares of the values of ${name}`}>
      ${shown.map(({ name: level, data, model, told = data ?? model }, at) => {
        const y = at * 24 + 2;
        const long = (share) => ((share ?? 0) / top) * 165;
        const tall = both ? 9 : 18;
        return html`<g key=${at}>
          <text x="104" y=${y + 13} text-anchor="end">${level.length > 18 ? `${level.slice(0, 17)}…` : level}</text>
          ${data !== undefined && html`<rect class="data" x="110" y=${y} width=${long(data)} height=${tall} />`}
          ${model !== undefined && html`<rect class="bar-model" x="110" y=${data !== undefined ? y + 10 : y} width=${long(model)} height=${tall} />`}
          <text x=${114 + Math.max(long(data), long(model))} y=${y + 13}>${percent(told)}</text>
          <title>${level}: ${data !== undefined ? `data ${percent(data)}` : ""} ${model !== undefined ? `samples ${percent(model)}` : ""}</title>
        </g>`;
      })}
    </svg>
    ${levels.length > most && html`<p class="hint">and ${plural(levels.length - most, "more value")}</p>`}`;
}

/** Quantiles of samples against those of data: on the diagonal where the model fits. */
export function Quantiles({ name, data, model, dates }) {
  const { sortedData, sortedModel } = scaled(data, model, dates);
  if (!sortedData.length || !sortedModel.length) return html`<p class="hint">No numbers.</p>`;
  const [low, high] = limits(sortedData, sortedModel);
  const size = WIDTH;
  const at = (value) => ((value - low) / (high - low)) * (size - 16) + 8;
  const shares = Array.from({ length: 99 }, (_, index) => (index + 1) / 100);
  return html`<svg viewBox=${`0 0 ${size} ${size}`} role="img" aria-label=${`Quantiles of samples against data, ${name}`}>
    <line class="diagonal" x1="8" y1=${size - 8} x2=${size - 8} y2="8" />
    ${shares.map((share) => html`<circle key=${share} class="point" r="2.6" cx=${at(quantile(sortedData, share))} cy=${size - at(quantile(sortedModel, share))} />`)}
    <text x=${size - 8} y=${size - 2} text-anchor="end">quantiles of the data</text><text x="10" y="12">quantiles of samples</text>
  </svg>`;
}

/** Log densities of a row's values given the others, beside the usual ones: the lowest make the row unlikely. */
export function Contributions({ parts }) {
  const sorted = Object.entries(parts).filter(([, value]) => value !== null).sort(([, one], [, other]) => one - other);
  const size = Math.max(...sorted.map(([, value]) => Math.abs(value)), 1e-9);
  const height = sorted.length * 22 + 4;
  const zero = 6 * Math.min(32, Math.max(...sorted.map(([name]) => name.length))) + 190; // after names and numbers
  const width = zero + (sorted.some(([, value]) => value > 0) ? 190 : 6);
  return html`<svg class="contributions" width=${1.3 * width} viewBox=${`0 0 ${width} ${height}`} role="img" aria-label="How well each value fits the others">
    ${sorted.map(([name, value], at) => {
      const long = (Math.abs(value) / size) * 150;
      const y = at * 22 + 2;
      return html`<g key=${name}>
        <text x="0" y=${y + 13}>${name.length > 32 ? `${name.slice(0, 31)}…` : name}</text>
        <rect class=${value < 0 ? "bad-bar" : "good-bar"} x=${value < 0 ? zero - long : zero} y=${y} width=${long} height="16" />
        <text x=${value < 0 ? zero - 4 - long : zero + 4 + long} y=${y + 13} text-anchor=${value < 0 ? "end" : "start"}>${value.toFixed(2)}</text>
      </g>`;
    })}
  </svg>`;
}
