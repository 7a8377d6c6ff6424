"""What named, versioned assets have in common: immutable versions, automatic numbering, labels, archiving.

Data and environments are such assets; their features add what is particular to them.
Tables: asset_versions. Events: <kind>.created, <kind>.updated, <kind>.archived, <kind>.restored.
"""
