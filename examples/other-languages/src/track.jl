# Tracks its own job with Julia's standard library alone: julia track.jl
using Downloads

const RUN = ENV["MLFLOW_RUN_ID"]

function call(path, json)
    answer = IOBuffer()
    response = Downloads.request(
        ENV["MLFLOW_TRACKING_URI"] * "/api/2.0/mlflow/" * path;
        method = "POST",
        input = IOBuffer(json),
        output = answer,
        headers = ["Authorization" => "Bearer " * ENV["MLFLOW_TRACKING_TOKEN"], "Content-Type" => "application/json"],
    )
    response.status == 200 || error("$path: $(response.status) $(String(take!(answer)))")
end

now_ms() = round(Int, time() * 1000)

call("runs/log-parameter", """{"run_id": "$RUN", "key": "language", "value": "julia"}""")
for step in 1:5
    call("runs/log-metric", """{"run_id": "$RUN", "key": "loss", "value": $(1 / step), "timestamp": $(now_ms()), "step": $step}""")
end
write("outputs/notes.txt", "hello from Julia\n")  # what lies in ./outputs becomes an artifact of the run
println("tracked run $RUN")
