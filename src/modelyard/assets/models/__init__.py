"""The model registry: registered models, their versions, tags, aliases and stages; MLflow's and Azure's view of the same registry.

Tables: registered_models, registered_model_tags, model_versions, model_version_tags, model_aliases.
Events: model.created, model.updated, model.deleted, model.archived, model.restored, model.aliased, model.staged, model.renamed.
"""
