"""Jobs: submit, queue, run, follow, cancel. A job is one row, one run, and one folder under `jobs/`.

Tables: jobs. Loop: jobs. Events: job.submitted, job.started, job.running, job.ended, job.cancel_requested, job.updated,
job.archived, job.restored.
"""
