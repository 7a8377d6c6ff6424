import argparse

import mlflow
from sklearn.datasets import load_iris
from sklearn.model_selection import train_test_split
from sklearn.tree import DecisionTreeClassifier

parser = argparse.ArgumentParser()
parser.add_argument("--max-depth", type=int)
args = parser.parse_args()

mlflow.autolog()
X_train, X_test, y_train, y_test = train_test_split(*load_iris(return_X_y=True, as_frame=True), random_state=1)
model = DecisionTreeClassifier(max_depth=args.max_depth, random_state=1).fit(X_train, y_train)
mlflow.log_metric("validation_accuracy", model.score(X_test, y_test))
