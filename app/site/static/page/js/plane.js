// Plots in the plane, on a canvas: points of two columns, and densities.
import { html, useEffect, useLayoutEffect, useMemo, useRef, useState } from "../vendor/vendor.js";
import { colour } from "./charts.js";
import { finite, limits, LINEAR, scaleOf } from "./scales.js";
import { moved, ZOOM_KEYS, ZoomButtons, zoomByKeys, zoomed } from "./zoom.js";

/** Points of two columns, data and samples; drag to move, wheel or buttons to zoom. */
export function Scatter({ x, y, data, model, show }) {
  const canvas = useRef(null);
  const { scales, places, whole } = useMemo(() => placed(x, y, data, model), [data, model]);
  const [view, setView] = useState(whole);
  const drag = useRef(null);
  useEffect(() => setView(whole), [data, model]);
  useDrawing(canvas, () => {
    const plane = frame(canvas.current, view, scales);
    drawPoints(plane, show === "model" ? [] : places.data, "--data");
    drawPoints(plane, show === "data" ? [] : places.model, "--model");
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
  const showAll = () => setView(whole);
  return html`<div class="scatter">
    <canvas ref=${canvas} tabindex="0" role="img" aria-label=${`${y.name} against ${x.name}; ${ZOOM_KEYS}`}
      onKeyDown=${zoomByKeys({ zoom, move, showAll })}
      onPointerDown=${(event) => { drag.current = place(event); canvas.current.setPointerCapture(event.pointerId); }}
      onPointerMove=${(event) => { if (!drag.current) return; const now = place(event); move(drag.current[0] - now[0], drag.current[1] - now[1]); drag.current = now; }}
      onPointerUp=${() => { drag.current = null; }}></canvas>
    <${ZoomButtons} zoom=${zoom} showAll=${showAll} />
  </div>`;
}

/** Return the scales of two columns, the places of points on them, and the limits that show all. */
function placed(x, y, data, model) {
  const of = (points, axis) => points.map((point) => point[axis]);
  const scales = [x, y].map((column, axis) => scaleOf(finite(of(data.length ? data : model, axis)), column.type === "datetime"));
  const place = (points) => points.map((point) => point.map((value, axis) => scales[axis].to(value))).filter((point) => point.every(Number.isFinite));
  const places = { data: place(data), model: place(model) };
  const [xs, ys] = [0, 1].map((axis) => limits(finite(of(places.data, axis)), finite(of(places.model, axis))));
  return { scales: { x: scales[0], y: scales[1] }, places, whole: { x: xs, y: ys } };
}

/** Log density on a grid, in nats below its peak: rows are values of the second name, from below. */
export function Heatmap({ label, window: box, values, names }) {
  const canvas = useRef(null);
  useDrawing(canvas, () => {
    const view = { x: [box.lower[0], box.upper[0]], y: [box.lower[1], box.upper[1]] };
    const { pen, x, y } = frame(canvas.current, view, { x: LINEAR, y: LINEAR });
    pen.drawImage(picture(values), x(view.x[0]), y(view.y[1]), x(view.x[1]) - x(view.x[0]), y(view.y[0]) - y(view.y[1]));
  });
  return html`<div class="scatter"><canvas ref=${canvas} role="img" aria-label=${label}></canvas></div>
    <p class="hint">${names[1]} upwards against ${names[0]}; the stronger the colour, the larger the density.</p>`;
}

/** Return densities as an image, a pixel each. */
function picture(values) {
  const [height, width] = [values.length, values[0].length];
  const image = new ImageData(width, height);
  const rgb = [1, 3, 5].map((at) => parseInt(colour("--model").slice(at, at + 2), 16));
  values.forEach((row, below) => row.forEach((value, column) => {
    image.data.set([...rgb, value === null ? 0 : 255 * Math.exp(value / 2)], 4 * ((height - 1 - below) * width + column));
  }));
  const made = Object.assign(document.createElement("canvas"), { width, height });
  made.getContext("2d").putImageData(image, 0, 0);
  return made;
}

/** Draw now, and again when the size or the theme changes. */
function useDrawing(canvas, draw) {
  useLayoutEffect(() => {
    draw();
    const sizes = new ResizeObserver(draw);
    sizes.observe(canvas.current);
    const theme = new MutationObserver(draw);
    theme.observe(document.documentElement, { attributeFilter: ["data-theme"] });
    return () => { sizes.disconnect(); theme.disconnect(); };
  });
}

/** Draw axes, and return {pen, x, y} to draw between them: x and y turn numbers into pixels. */
function frame(canvas, view, scales) {
  const ratio = window.devicePixelRatio || 1;
  const width = canvas.clientWidth;
  const height = Math.min(width * 0.75, 460);
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  pen.font = "11px system-ui, sans-serif";
  const ticks = { x: scales.x.ticks(...view.x, width < 600 ? 3 : 6), y: scales.y.ticks(...view.y, 5) };
  const [left, bottom] = [16 + Math.max(...ticks.y.map(([, name]) => pen.measureText(name).width), 0), 24];
  const x = (value) => left + ((value - view.x[0]) / (view.x[1] - view.x[0])) * (width - left - 8);
  const y = (value) => height - bottom - ((value - view.y[0]) / (view.y[1] - view.y[0])) * (height - bottom - 8);
  pen.strokeStyle = colour("--line");
  pen.fillStyle = colour("--soft");
  pen.textAlign = "center";
  for (const [tick, name] of ticks.x) {
    line(pen, x(tick), 8, x(tick), height - bottom);
    pen.fillText(name, x(tick), height - 8);
  }
  pen.textAlign = "right";
  for (const [tick, name] of ticks.y) {
    line(pen, left, y(tick), width - 8, y(tick));
    pen.fillText(name, left - 6, y(tick) + 4);
  }
  pen.beginPath();
  pen.rect(left, 0, width - left, height - bottom);
  pen.clip();
  return { pen, x, y };
}

function drawPoints({ pen, x, y }, points, name) {
  pen.fillStyle = colour(name);
  pen.globalAlpha = points.length > 800 ? 0.5 : 0.75;
  for (const [px, py] of points) pen.fillRect(x(px) - 1.5, y(py) - 1.5, 3, 3);
}

function line(pen, x0, y0, x1, y1) {
  pen.beginPath();
  pen.moveTo(x0, y0);
  pen.lineTo(x1, y1);
  pen.stroke();
}
