# Trains a model in R and tracks it: Rscript track.R. Base R and curl are all it needs; with httr2 or jsonlite `call` is shorter still.
header <- tempfile()  # a file, so that the token stands on no command line
writeLines(c(paste("Authorization: Bearer", Sys.getenv("MLFLOW_TRACKING_TOKEN")), "Content-Type: application/json"), header)
run <- Sys.getenv("MLFLOW_RUN_ID")

call <- function(path, json) {
  url <- paste0(Sys.getenv("MLFLOW_TRACKING_URI"), "/api/2.0/mlflow/", path)
  options <- c("--fail-with-body", "--silent", "--show-error", "-H", paste0("@", header), "--data", "@-", shQuote(url))
  answer <- suppressWarnings(system2("curl", options, input = json, stdout = TRUE))
  if (!is.null(attr(answer, "status"))) stop(path, ": ", paste(answer, collapse = "\n"))
  invisible(answer)
}

log_param <- function(key, value) call("runs/log-parameter", sprintf('{"run_id": "%s", "key": "%s", "value": "%s"}', run, key, value))
log_metric <- function(key, value, step = 0) {
  now <- format(round(as.numeric(Sys.time()) * 1000), scientific = FALSE)
  number <- format(value, digits = 15)
  call("runs/log-metric", sprintf('{"run_id": "%s", "key": "%s", "value": %s, "timestamp": %s, "step": %d}', run, key, number, now, as.integer(step)))
}

log_param("language", "R")
log_param("formula", "mpg ~ wt + hp")
model <- lm(mpg ~ wt + hp, data = mtcars)
for (degree in 1:3) {
  log_metric("loss", sqrt(mean(residuals(lm(mpg ~ poly(wt, degree), data = mtcars))^2)) / sd(mtcars$mpg), degree)
}
log_metric("r_squared", summary(model)$r.squared)
saveRDS(model, "outputs/model.rds")  # what lies in ./outputs becomes an artifact of the run
cat("tracked run", run, "\n")
