"""Batch endpoints: pipelines behind an address, with typed parameters, keys and a default version.

Tables: batch_endpoints, batch_deployments, batch_jobs. Events: batch_endpoint.created, batch_endpoint.updated,
batch_endpoint.deleted, batch_endpoint.key_regenerated, batch_endpoint.invoked, batch_deployment.created,
batch_deployment.updated, batch_deployment.deleted.
"""
