"""What makes things happen: the loops, and the frame in which every native REST call runs."""
