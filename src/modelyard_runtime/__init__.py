"""Programs that run beside user code. They are started by path with `python -I`, import nothing of modelyard, and run
on every Python from 3.8. `supervisor`, `runner` and `sandbox` use the standard library only."""
