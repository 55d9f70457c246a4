#!/bin/sh
# From a CSV file with text and gaps to scored rows and samples over HTTP: curl, grep, awk.
# Usage:  examples/penguins.sh [http://127.0.0.1:8000]
# A service that has API keys wants one in DENSITYD_API_KEY.
set -eu
url=${1:-http://127.0.0.1:8000}
table=$(dirname "$0")/penguins/penguins.csv
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

call() { # curl that sends the key, if any, and shows the service's own error text
  curl --silent --show-error --fail-with-body \
    ${DENSITYD_API_KEY:+-H "Authorization: Bearer $DENSITYD_API_KEY"} "$@" || { echo >&2; exit 1; }
}

# 0. See whether the service is there, and wants a key that is missing.
case $(curl --silent --output /dev/null --write-out '%{http_code}' \
  ${DENSITYD_API_KEY:+-H "Authorization: Bearer $DENSITYD_API_KEY"} "$url/v1/me") in
  000) echo "No service answers at $url; start one with \`make up\`." >&2; exit 1 ;;
  401) echo "The service wants an API key: set DENSITYD_API_KEY to a key with the scope write," \
      "which \`densityd keys create --scope write\` makes." >&2; exit 1 ;;
esac

# 1. Upload the bytes of the file.
call -o "$work/dataset" "$url/v1/datasets?name=penguins" \
  -H 'Content-Type: text/csv' --data-binary "@$table"
dataset=$(grep -o 'ds_[0-9a-f]*' "$work/dataset" | head -n 1)
echo "uploaded $table as $dataset" >&2

# 2. Train with the defaults and a seed, so that the same numbers come again; the stream of events
# ends with the job.
call -o "$work/job" "$url/v1/jobs/training" -H 'Content-Type: application/json' \
  -d "{\"model_name\": \"penguins\", \"dataset_id\": \"$dataset\", \"optimisation\": {\"seed\": 1}}"
job=$(grep -o 'job_[0-9a-f]*' "$work/job" | head -n 1)
echo "training as $job; every tenth epoch:" >&2
call --no-buffer "$url/v1/jobs/$job/events" | tee "$work/events" | awk '
  /^event: / { event = substr($0, 8) }
  /^data: /  { if (event != "epoch" || epochs++ % 10 == 0) { print "  " event " " substr($0, 7, 110); fflush() } }' >&2
grep -q '"state": *"succeeded"' "$work/events" || { cat "$work/events"; exit 1; }

# 3. Score the first rows of the file, as they are in it: the fourth has gaps.
head -n 6 "$table" > "$work/rows.csv"
call "$url/v1/models/penguins/log_prob?parts=true" -H 'Accept: text/csv' \
  -H 'Content-Type: text/csv' --data-binary "@$work/rows.csv"

# 4. Score a row that is no penguin of the table: an Adelie as heavy as a Gentoo.
call "$url/v1/models/penguins/score" -H 'Content-Type: application/json' -d '{"rows": [{
  "species": "Adelie", "island": "Torgersen", "bill_length_mm": 39.1, "bill_depth_mm": 18.7,
  "flipper_length_mm": 181, "body_mass_g": 6000, "sex": "male", "year": 2007}]}'
echo

# 5. Sample.
call "$url/v1/models/penguins/sample" -H 'Accept: text/csv' \
  -H 'Content-Type: application/json' -d '{"n": 5, "seed": 7}'
