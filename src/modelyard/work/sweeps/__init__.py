"""Sweeps: trials of one command over a search space. A trial is a job; its point is drawn from the sweep's seed and the trial's
number, and written with it, so that a sweep goes on after a crash without repeating one.

Tables: sweep_trials. Events: those of jobs.
"""
