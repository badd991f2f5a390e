import mlflow

from spatl_ray import Callback


class MLflow(Callback):
    def __init__(self, experiment):
        self.fields = {"algorithm": experiment.algorithm.name, "seed": experiment.seed}

    def run_started(self, experiment, run_id):
        mlflow.start_run(run_name=run_id)
        mlflow.log_params(self.fields)

    def round_ended(self, row):
        numbers = {name: value for name, value in row.items() if isinstance(value, int | float)}
        mlflow.log_metrics(numbers, step=row["round"])

    def run_ended(self, status):
        mlflow.end_run({"finished": "FINISHED", "interrupted": "KILLED"}.get(status, "FAILED"))
