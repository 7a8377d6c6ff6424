"""Who: workspaces, principals and roles, secrets, the audit log."""
