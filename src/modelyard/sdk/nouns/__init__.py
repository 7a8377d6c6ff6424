"""What is special of each noun: operations that no other has, and those that differ."""
