"""`yard import mlflow`: readers of MLflow's stores (a server, an `mlruns` folder, a SQLite file) and the importer."""
