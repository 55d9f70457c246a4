// The libraries of the page as one module; `tools/page/vendor.sh` bundles it.
export { Fragment, h, render } from "preact";
export { useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
export { batch, computed, effect, signal, useComputed, useSignal } from "@preact/signals";
export { default as uPlot } from "uplot";
import { h } from "preact";
import htm from "htm";

export const html = htm.bind(h);
