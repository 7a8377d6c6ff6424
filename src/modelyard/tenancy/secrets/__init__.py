"""Secrets: values sealed with the master key and bound to workspace, name and version; never logged, listed or put in a spec.

Tables: secrets. Events: secret.set, secret.deleted.
"""
