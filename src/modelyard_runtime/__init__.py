"""Programs that run beside user code: started as `python -I …/modelyard_runtime PROGRAM`, on every Python from 3.8, importing nothing of modelyard."""
