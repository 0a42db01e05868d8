#!/usr/bin/env bash
# Fetches what package-lock.json names, checks it against the hashes there, and copies what the pages use.
set -euo pipefail
cd "$(dirname "$0")"
npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
cp node_modules/uplot/dist/uPlot.esm.js node_modules/uplot/dist/uPlot.min.css static/vendor/
cp node_modules/uplot/LICENSE static/vendor/uPlot.LICENSE
rm -r node_modules
cd static/vendor
sha256sum uPlot.LICENSE uPlot.esm.js uPlot.min.css > SHA256SUMS
