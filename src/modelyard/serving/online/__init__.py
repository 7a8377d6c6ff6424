"""Online endpoints: models behind an address, with keys, through the router to replicas of the model server.

Tables: endpoints, deployments, rollouts. Loops: deployments, scaling, rollouts, liveness, issuer. Events: online_endpoint.created, online_endpoint.updated,
online_endpoint.deleted, online_endpoint.key_regenerated, online_deployment.created, online_deployment.updated,
online_deployment.ready, online_deployment.scaled, online_deployment.failed, online_deployment.deleted,
online_endpoint.token_made, online_endpoint.rollout_started, online_endpoint.rollout_stepped,
online_endpoint.rollout_completed, online_endpoint.rollout_aborted.
"""
