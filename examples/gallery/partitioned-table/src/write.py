import sys
from pathlib import Path

import pandas as pd

MLTABLE = """
type: mltable
paths:
  - pattern: ./country=*/*.parquet
transformations:
  - read_parquet:
      include_path_column: true
  - drop_columns: customer
"""

folder = Path(sys.argv[1])
for country, amounts in {"DE": [10.0, 20.0, 30.0], "FR": [5.0, 15.0], "PL": [8.0]}.items():
    part = folder / f"country={country}"
    part.mkdir(parents=True)
    frame = pd.DataFrame({"amount": amounts, "customer": [f"{country}-{number}" for number in range(len(amounts))]})
    frame.to_parquet(part / "part-0.parquet", index=False)
(folder / "MLTable").write_text(MLTABLE.lstrip())
