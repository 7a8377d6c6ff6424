"""What runs inside the server: features, the loops, and the frame in which every native REST call runs."""
