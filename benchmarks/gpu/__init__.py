"""What is measured and checked on a GPU, or compiled for one."""
