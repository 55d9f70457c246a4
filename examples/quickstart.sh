#!/bin/sh
# Train a flow on the shuttle data over HTTP, score held-out rows, sample from it: curl, sed, awk.
# Usage:  examples/quickstart.sh [http://127.0.0.1:8000]
# A service that has API keys wants one in DENSITYD_API_KEY.
set -eu
url=${1:-http://127.0.0.1:8000}
data=$(dirname "$0")/shuttle
started=$(date +%s)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

call() { # curl that sends the key, if any, and shows the service's own error text
  curl --silent --show-error --fail-with-body \
    ${DENSITYD_API_KEY:+-H "Authorization: Bearer $DENSITYD_API_KEY"} "$@" || { echo >&2; exit 1; }
}
field() { # the first value of a string or number field of the JSON on stdin
  sed -n "s/.*\"$1\": *\"\{0,1\}\([^\",}]*\).*/\1/p" | head -n 1
}

# 0. See whether the service is there, and wants a key that is missing.
case $(curl --silent --output /dev/null --write-out '%{http_code}' \
  ${DENSITYD_API_KEY:+-H "Authorization: Bearer $DENSITYD_API_KEY"} "$url/v1/me") in
  000) echo "No service answers at $url; start one with \`make up\`." >&2; exit 1 ;;
  401) echo "The service wants an API key: set DENSITYD_API_KEY to a key with the scope write," \
      "which \`densityd keys create --scope write\` makes." >&2; exit 1 ;;
esac

# 1. Upload the table.
call -o "$work/dataset" "$url/v1/datasets?name=shuttle" \
  -H 'Content-Type: text/csv' --data-binary "@$data/train.csv"
dataset=$(grep -o '"id": *"ds_[0-9a-f]*"' "$work/dataset" | grep -o 'ds_[0-9a-f]*' | head -n 1)
echo "uploaded $data/train.csv as $dataset"

# 2. Train with the defaults and follow the progress.
call -o "$work/job" "$url/v1/jobs/training" -H 'Content-Type: application/json' \
  -d "{\"model_name\": \"shuttle\", \"dataset_id\": \"$dataset\"}"
job=$(grep -o 'job_[0-9a-f]*' "$work/job" | head -n 1)
echo "training as $job; its events:"
call --no-buffer "$url/v1/jobs/$job/events" | awk '
  /^event: / { event = substr($0, 8) }
  /^data: /  { if (event != "epoch" || epochs++ % 10 == 0) print "  " event " " substr($0, 7, 110) }'
call -o "$work/job" "$url/v1/jobs/$job"
state=$(grep -o '"state": *"[a-z]*"' "$work/job" | grep -o '[a-z]*"$' | head -n 1)
[ "$state" = 'succeeded"' ] || { echo "the job did not succeed:"; cat "$work/job"; exit 1; }
version=$(field version < "$work/job")
echo "model shuttle:$version"

# 3. Score held-out normal rows and anomalies (npy in, JSON out).
score() {
  call -o "$work/scores" "$url/v1/models/shuttle:$version/log_prob" -H 'Accept: application/json' \
    -H 'Content-Type: application/x-npy' --data-binary "@$data/$1"
  # A row outside the flow's range is null: the least likely there is.
  sed 's/.*"log_prob": *\[\([^]]*\)\].*/\1/' "$work/scores" | tr ',' '\n' |
    sed "s/null/-1e300/; s/^ *//; s/\$/ $2/" | grep .
}
score test_normal.npy 0 > "$work/normal"
score test_anomalies.npy 1 > "$work/anomalies"

# 4. AUROC of -log_prob by ranks (the chance that an anomaly is less likely than a normal row).
sort -g "$work/normal" "$work/anomalies" | awk '
  { rank++; if ($2) { sum += rank; anomalies++ } else normal++ }
  END { printf "AUROC of -log_prob on %d rows: %.4f\n", rank,
        1 - (sum - anomalies * (anomalies + 1) / 2) / (anomalies * normal) }'

# 5. Sample 1000 rows.
call -o "$work/sample" "$url/v1/models/shuttle:$version/sample" \
  -H 'Content-Type: application/json' -d '{"n": 1000, "seed": 7}'
printf 'sampled 1000 rows: %s...\n' "$(head -c 150 "$work/sample")"
echo "done in $(($(date +%s) - started)) s"
