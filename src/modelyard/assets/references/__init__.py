"""Who holds what: a deployment its model, a job its inputs. Deletion asks here, and so does lineage.

Tables: holds.
"""
