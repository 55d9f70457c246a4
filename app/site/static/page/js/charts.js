// Plots: curves by uPlot; histograms, bars and quantiles as SVG; points on a canvas.
import { html, uPlot, useEffect, useLayoutEffect, useRef, useState } from "../vendor/vendor.js";
import { day, number, percent } from "./format.js";

const WIDTH = 320;
const HEIGHT = 150;
const LEFT = 8;
const BOTTOM = 18;

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Return about `count` round numbers between two numbers. */
export function ticks(low, high, count = 4) {
  const span = high - low || 1;
  const rough = span / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const found = [];
  for (let at = Math.ceil(low / step); at * step <= high + step * 1e-9; at += 1) found.push(at * step);
  return found;
}

/** Return the sorted finite numbers of a list. */
export const finite = (values) => Float64Array.from(values.filter(Number.isFinite)).sort();

/** Return the quantile of sorted numbers. */
export function quantile(sorted, share) {
  const at = share * (sorted.length - 1);
  const below = Math.floor(at);
  return sorted[below] + (at - below) * ((sorted[below + 1] ?? sorted[below]) - sorted[below]);
}

/** Return the limits that show 99.6 % of sorted numbers, so that one far value hides nothing. */
export function limits(...lists) {
  const filled = lists.filter((list) => list.length);
  if (!filled.length) return [0, 1];
  const low = Math.min(...filled.map((list) => quantile(list, 0.002)));
  const high = Math.max(...filled.map((list) => quantile(list, 0.998)));
  const edge = (high - low || Math.abs(high) || 1) * 0.02;
  return [low - edge, high + edge];
}

/**
 * Curves over the same x, updated without drawing all again.
 * series: [{label, values, stroke (CSS variable), width}], values may have null for no value.
 */
export function Curve({ label, x, xLabel, yLabel, series, summary }) {
  const box = useRef(null);
  const plot = useRef(null);
  const data = [x, ...series.map((one) => one.values)];
  useLayoutEffect(() => {
    const axis = (text) => ({ label: text, stroke: colour("--soft"), grid: { stroke: colour("--line") }, ticks: { stroke: colour("--line") } });
    const make = () => {
      plot.current?.destroy();
      plot.current = new uPlot(
        {
          width: box.current.clientWidth,
          height: 300,
          scales: { x: { time: false } },
          axes: [axis(xLabel), axis(yLabel)],
          cursor: { drag: { x: true, y: false } },
          series: [
            { label: xLabel },
            ...series.map((one) => ({
              label: one.label,
              stroke: colour(one.stroke),
              width: one.width ?? 2,
              dash: one.dash,
              points: { show: false },
              value: (_, value) => (value === null ? "–" : value.toFixed(3)),
            })),
          ],
        },
        data,
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
  useEffect(() => {
    const frame = requestAnimationFrame(() => plot.current?.setData(data));
    return () => cancelAnimationFrame(frame);
  });
  return html`<figure class="curve" aria-label=${label}>
    <div ref=${box}></div>
    <figcaption class="hidden-text">${summary}</figcaption>
  </figure>`;
}

function Axis({ low, high, at, dates }) {
  const names = ticks(low, high);
  return html`<line class="axis" x1=${LEFT} x2=${WIDTH - LEFT} y1=${HEIGHT - BOTTOM} y2=${HEIGHT - BOTTOM} />
    ${names.map((value) => html`<text key=${value} x=${at(value)} y=${HEIGHT - 5} text-anchor="middle">${dates ? day(value).slice(0, 10) : number(value)}</text>`)}`;
}

/** Histogram of a column: data as filled bars, samples of the model as a line. */
export function Histogram({ name, data, model, dates = false, bins = 36 }) {
  const sortedData = finite(data ?? []);
  const sortedModel = finite(model ?? []);
  const [low, high] = limits(sortedData, sortedModel);
  const at = (value) => LEFT + ((value - low) / (high - low)) * (WIDTH - 2 * LEFT);
  const counted = (values) => {
    const counts = new Array(bins).fill(0);
    for (const value of values) {
      const bin = Math.floor(((value - low) / (high - low)) * bins);
      if (bin >= 0 && bin < bins) counts[bin] += 1 / values.length;
    }
    return counts;
  };
  const ofData = counted(sortedData);
  const ofModel = counted(sortedModel);
  const top = Math.max(...ofData, ...ofModel, 1e-12);
  const y = (share) => HEIGHT - BOTTOM - (share / top) * (HEIGHT - BOTTOM - 8);
  const width = (WIDTH - 2 * LEFT) / bins;
  const line = ofModel.map((share, bin) => `${bin ? "L" : "M"}${LEFT + bin * width},${y(share)}h${width}`).join("");
  return html`<svg viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label=${`Histogram of ${name}`}>
    ${ofData.map((share, bin) => share > 0 && html`<rect key=${bin} class="data" x=${LEFT + bin * width} y=${y(share)} width=${width - 0.6} height=${HEIGHT - BOTTOM - y(share)} />`)}
    ${sortedModel.length > 0 && html`<path class="model" d=${line} />`}
    <${Axis} low=${low} high=${high} at=${at} dates=${dates} />
  </svg>`;
}

/** Shares of the levels of a column, of the data and of samples; levels: [{name, data, model}]. */
export function Levels({ name, levels }) {
  const most = 12;
  const shown = levels.slice(0, most);
  const top = Math.max(...levels.flatMap(({ data, model }) => [data ?? 0, model ?? 0]), 1e-9);
  const height = shown.length * 24 + 4;
  const both = levels.some(({ data }) => data !== undefined) && levels.some(({ model }) => model !== undefined);
  return html`<svg viewBox=${`0 0 ${WIDTH} ${height}`} role="img" aria-label=${`Shares of the values of ${name}`}>
      ${shown.map(({ name: level, data, model }, at) => {
        const y = at * 24 + 2;
        const long = (share) => ((share ?? 0) / top) * 165;
        const tall = both ? 9 : 18;
        return html`<g key=${at}>
          <text x="104" y=${y + 13} text-anchor="end">${level.length > 18 ? `${level.slice(0, 17)}…` : level}</text>
          ${data !== undefined && html`<rect class="data" x="110" y=${y} width=${long(data)} height=${tall} />`}
          ${model !== undefined && html`<rect class="bar-model" x="110" y=${data !== undefined ? y + 10 : y} width=${long(model)} height=${tall} />`}
          <text x=${114 + Math.max(long(data), long(model))} y=${y + 13}>${percent(data ?? model)}</text>
          <title>${level}: ${data !== undefined ? `data ${percent(data)}` : ""} ${model !== undefined ? `samples ${percent(model)}` : ""}</title>
        </g>`;
      })}
    </svg>
    ${levels.length > most && html`<p class="hint">and ${levels.length - most} more values</p>`}`;
}

/** Points of two columns, data and samples; drag to move, wheel or buttons to zoom. */
export function Scatter({ xName, yName, data, model, show }) {
  const canvas = useRef(null);
  const xs = limits(finite(data.map(([x]) => x)), finite(model.map(([x]) => x)));
  const ys = limits(finite(data.map(([, y]) => y)), finite(model.map(([, y]) => y)));
  const whole = { x: xs, y: ys };
  const [view, setView] = useState(whole);
  const drag = useRef(null);
  useEffect(() => setView(whole), [xName, yName, data, model]);
  useLayoutEffect(() => {
    const draw = () => drawPoints(canvas.current, view, show === "model" ? [] : data, show === "data" ? [] : model);
    draw();
    const sizes = new ResizeObserver(draw);
    sizes.observe(canvas.current);
    const theme = new MutationObserver(draw);
    theme.observe(document.documentElement, { attributeFilter: ["data-theme"] });
    return () => { sizes.disconnect(); theme.disconnect(); };
  });
  const zoom = (factor, at = [0.5, 0.5]) => setView((now) => ({ x: zoomed(now.x, factor, at[0]), y: zoomed(now.y, factor, at[1]) }));
  const move = (dx, dy) => setView((now) => ({ x: moved(now.x, dx), y: moved(now.y, dy) }));
  const place = (event) => {
    const box = canvas.current.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, 1 - (event.clientY - box.top) / box.height];
  };
  useEffect(() => {
    const wheel = (event) => {
      event.preventDefault();
      zoom(event.deltaY > 0 ? 1.2 : 1 / 1.2, place(event));
    };
    const element = canvas.current;
    element.addEventListener("wheel", wheel, { passive: false });
    return () => element.removeEventListener("wheel", wheel);
  }, []);
  const keys = {
    "+": () => zoom(1 / 1.3), "-": () => zoom(1.3), 0: () => setView(whole),
    ArrowLeft: () => move(-0.1, 0), ArrowRight: () => move(0.1, 0), ArrowUp: () => move(0, 0.1), ArrowDown: () => move(0, -0.1),
  };
  const onKeyDown = (event) => {
    if (!keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  };
  return html`<div class="scatter">
    <canvas ref=${canvas} tabindex="0" role="img" aria-label=${`${yName} against ${xName}; plus and minus zoom, arrows move, 0 shows all`}
      onKeyDown=${onKeyDown}
      onPointerDown=${(event) => { drag.current = place(event); canvas.current.setPointerCapture(event.pointerId); }}
      onPointerMove=${(event) => { if (!drag.current) return; const now = place(event); move(drag.current[0] - now[0], drag.current[1] - now[1]); drag.current = now; }}
      onPointerUp=${() => { drag.current = null; }}></canvas>
    <p class="row"><button type="button" onClick=${() => zoom(1 / 1.5)}>Zoom in</button>
      <button type="button" onClick=${() => zoom(1.5)}>Zoom out</button>
      <button type="button" onClick=${() => setView(whole)}>Show all</button></p>
  </div>`;
}

const zoomed = ([low, high], factor, at) => {
  const middle = low + at * (high - low);
  return [middle - (middle - low) * factor, middle + (high - middle) * factor];
};

const moved = ([low, high], share) => [low + share * (high - low), high + share * (high - low)];

function drawPoints(canvas, view, data, model) {
  const scale = window.devicePixelRatio || 1;
  const width = canvas.clientWidth;
  const height = Math.min(width * 0.75, 460);
  canvas.width = width * scale;
  canvas.height = height * scale;
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  pen.clearRect(0, 0, width, height);
  pen.font = "11px system-ui, sans-serif";
  const [left, bottom] = [56, 24];
  const x = (value) => left + ((value - view.x[0]) / (view.x[1] - view.x[0])) * (width - left - 8);
  const y = (value) => height - bottom - ((value - view.y[0]) / (view.y[1] - view.y[0])) * (height - bottom - 8);
  pen.strokeStyle = colour("--line");
  pen.fillStyle = colour("--soft");
  pen.textAlign = "center";
  for (const tick of ticks(...view.x, 6)) {
    line(pen, x(tick), 8, x(tick), height - bottom);
    pen.fillText(number(tick), x(tick), height - 8);
  }
  pen.textAlign = "right";
  for (const tick of ticks(...view.y, 5)) {
    line(pen, left, y(tick), width - 8, y(tick));
    pen.fillText(number(tick), left - 6, y(tick) + 4);
  }
  pen.save();
  pen.beginPath();
  pen.rect(left, 0, width - left, height - bottom);
  pen.clip();
  for (const [points, name] of [[data, "--data"], [model, "--model"]]) {
    pen.fillStyle = colour(name);
    pen.globalAlpha = points.length > 800 ? 0.5 : 0.75;
    for (const [px, py] of points) pen.fillRect(x(px) - 1.5, y(py) - 1.5, 3, 3);
  }
  pen.restore();
}

function line(pen, x0, y0, x1, y1) {
  pen.beginPath();
  pen.moveTo(x0, y0);
  pen.lineTo(x1, y1);
  pen.stroke();
}

/** Quantiles of samples against those of data: on the diagonal where the model fits. */
export function Quantiles({ name, data, model }) {
  const sortedData = finite(data);
  const sortedModel = finite(model);
  if (!sortedData.length || !sortedModel.length) return html`<p class="hint">No numbers.</p>`;
  const [low, high] = limits(sortedData, sortedModel);
  const size = 200;
  const at = (value) => ((value - low) / (high - low)) * (size - 16) + 8;
  const shares = Array.from({ length: 99 }, (_, index) => (index + 1) / 100);
  return html`<svg viewBox=${`0 0 ${size} ${size}`} role="img" aria-label=${`Quantiles of samples against data, ${name}`}>
    <line class="diagonal" x1="8" y1=${size - 8} x2=${size - 8} y2="8" />
    ${shares.map((share) => html`<circle key=${share} class="point" r="1.8" cx=${at(quantile(sortedData, share))} cy=${size - at(quantile(sortedModel, share))} />`)}
    <text x=${size - 8} y=${size - 2} text-anchor="end">data</text><text x="10" y="12">samples</text>
  </svg>`;
}

/** Log densities of a row's values given the others: the lowest make the row unlikely. */
export function Contributions({ parts }) {
  const sorted = Object.entries(parts).filter(([, value]) => value !== null).sort(([, one], [, other]) => one - other);
  const size = Math.max(...sorted.map(([, value]) => Math.abs(value)), 1e-9);
  const height = sorted.length * 22 + 4;
  const zero = 430;
  return html`<svg viewBox=${`0 0 ${2 * WIDTH} ${height}`} role="img" aria-label="Log density of each value given the others">
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
