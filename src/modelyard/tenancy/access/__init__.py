"""Access: principals, roles and their assignments, API tokens, tokens of jobs.

Tables: principals, custom_roles, role_assignments, tokens.
Events: principal.created, principal.deleted, role.assigned, role.unassigned, role.defined, token.created, token.revoked, access.refused. Loop: the writer of refusals.
"""
