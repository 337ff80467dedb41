"""What whole processes take, and those of another checkout beside them."""
