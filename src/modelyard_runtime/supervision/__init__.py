"""What starts, confines, watches and ends processes. Standard library only."""
