"""What a request means to a model: scripts, MLflow models, and the contracts that they are asked by."""
