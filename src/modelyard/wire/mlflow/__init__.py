"""MLflow's REST protocol (reference `mlflow-protocol`): tracking, registry and the artifact proxy, for unmodified clients.

Routes are looked up in one table by method and path, below any of `/api/2.0`, `/api/3.0`, `/ajax-api/…`, optionally under
`/ws/<workspace>`; otherwise the token says which workspace is meant. Nothing is decided here.
"""
