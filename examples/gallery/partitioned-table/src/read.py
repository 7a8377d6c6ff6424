import sys

import mlflow
import mltable

sales = mltable.load(sys.argv[1]).to_pandas_dataframe()
assert "customer" not in sales.columns, list(sales.columns)
sales["country"] = sales["Path"].str.extract("country=([A-Z]+)")
totals = sales.groupby("country")["amount"].sum()
print(totals)
for country, total in totals.items():
    mlflow.log_metric(f"total_{country}", total)
