import argparse
import os

import joblib
import mlflow
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

parser = argparse.ArgumentParser()
parser.add_argument("--data", required=True)
parser.add_argument("--model-dir", required=True)
parser.add_argument("--n-estimators", type=int, default=100)
args = parser.parse_args()

customers = pd.read_csv(args.data)
X, y = customers.drop("churn", axis=1), customers["churn"]
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
encoder = ColumnTransformer([("contract", OneHotEncoder(), ["contract"])], remainder="passthrough")
model = make_pipeline(encoder, RandomForestClassifier(args.n_estimators, random_state=0))
model.fit(X_train, y_train)

mlflow.log_param("n_estimators", args.n_estimators)
mlflow.log_metric("accuracy", model.score(X_test, y_test))
os.makedirs(args.model_dir, exist_ok=True)
joblib.dump(model, os.path.join(args.model_dir, "model.pkl"))
