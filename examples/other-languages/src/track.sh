#!/bin/sh
# Tracks its own job with curl alone. Inside a job the address, the token and the run are in the environment.
set -eu
call() { # call PATH JSON
  curl --fail --silent --show-error -H "Authorization: Bearer $MLFLOW_TRACKING_TOKEN" -H "Content-Type: application/json" \
    -d "$2" "$MLFLOW_TRACKING_URI/api/2.0/mlflow/$1"
}
run=$MLFLOW_RUN_ID
now=$(($(date +%s) * 1000))

call runs/log-parameter "{\"run_id\": \"$run\", \"key\": \"language\", \"value\": \"shell\"}" > /dev/null
for step in 1 2 3 4 5; do
  call runs/log-metric "{\"run_id\": \"$run\", \"key\": \"loss\", \"value\": 0.$((9 - step)), \"timestamp\": $now, \"step\": $step}" > /dev/null
done
call runs/set-tag "{\"run_id\": \"$run\", \"key\": \"made-with\", \"value\": \"curl\"}" > /dev/null

# An artifact is a PUT below the run's artifact address.
uri=$(curl --fail --silent -G -H "Authorization: Bearer $MLFLOW_TRACKING_TOKEN" --data-urlencode "run_id=$run" \
  "$MLFLOW_TRACKING_URI/api/2.0/mlflow/runs/get" | sed -n 's/.*"artifact_uri":"mlflow-artifacts:\/\([^"]*\)".*/\1/p')
echo "hello from the shell" | curl --fail --silent --show-error -H "Authorization: Bearer $MLFLOW_TRACKING_TOKEN" -T - \
  "$MLFLOW_TRACKING_URI/api/2.0/mlflow-artifacts/artifacts/$uri/notes.txt" > /dev/null
echo "tracked run $run"
