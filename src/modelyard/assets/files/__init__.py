"""Datastores and the files in them: a path in a datastore is a row that points to content-addressed bytes.

Uploads say first what they have and send only what is missing; equal content is stored once.
Tables: datastores, files, named_outputs, contents. Events: datastore.created, datastore.updated, datastore.deleted, files.uploaded,
files.deleted, content.damaged. Loop: the alarm about damaged content.
"""
