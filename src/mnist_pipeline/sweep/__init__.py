"""The sweep: Optuna proposes, workers train, MLflow has it all."""
