"""What runs inside a job's environment. Standard library only."""
