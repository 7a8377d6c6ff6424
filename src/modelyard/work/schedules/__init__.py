"""Schedules: jobs made at due times, or when something changed. A firing is one transaction: the job is made and the schedule moved on
together, so that each due time fires once, across restarts and servers.

Tables: schedules, schedule_firings. Events: schedule.replanned, schedule.created, schedule.updated, schedule.deleted, schedule.enabled, schedule.disabled, schedule.fired.
"""
