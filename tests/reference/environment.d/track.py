"""Logs by MLflow, which knows nothing of effai."""

from pathlib import Path

import mlflow

with mlflow.start_run():
    mlflow.log_param("rate", 0.01)
    for step in range(3):
        mlflow.log_metric("train/loss", 1 / (step + 1), step=step)
    mlflow.log_metric("accuracy", 0.75)
Path("model.txt").write_text("tracked\n")
