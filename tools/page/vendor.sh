#!/usr/bin/env bash
# Bundle the libraries of the web page, pinned by package-lock.json, with their licences.
set -euo pipefail
cd "$(dirname "$0")"
out=../../app/site/static/page/vendor
npm ci --ignore-scripts --silent
npx esbuild vendor.js --bundle --format=esm --minify --legal-comments=none --outfile="$out/vendor.js"
cp node_modules/uplot/dist/uPlot.min.css "$out/uplot.css"
: > "$out/LICENCES.txt"
for name in preact @preact/signals @preact/signals-core htm uplot; do
  printf '%s %s\n\n' "$name" "$(node -p "require('./node_modules/$name/package.json').version")" >> "$out/LICENCES.txt"
  cat "node_modules/$name/LICENSE" >> "$out/LICENCES.txt"
  printf '\n\n' >> "$out/LICENCES.txt"
done
