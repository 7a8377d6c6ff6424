import mlflow
from mlflow.models import infer_signature
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Ridge
from sklearn.model_selection import train_test_split

mlflow.set_experiment("plain-mlflow")
X_train, X_test, y_train, y_test = train_test_split(*load_diabetes(return_X_y=True, as_frame=True), random_state=0)

with mlflow.start_run(run_name="ridge") as run:
    for alpha in (0.1, 1.0):
        with mlflow.start_run(run_name=f"alpha {alpha}", nested=True):
            model = Ridge(alpha).fit(X_train, y_train)
            mlflow.log_param("alpha", alpha)
            mlflow.log_metric("r2", model.score(X_test, y_test))
    signature = infer_signature(X_test, model.predict(X_test))
    mlflow.sklearn.log_model(model, name="model", signature=signature, registered_model_name="plain-mlflow")

loaded = mlflow.pyfunc.load_model("models:/plain-mlflow/1")
print(loaded.predict(X_test.head(3)))
