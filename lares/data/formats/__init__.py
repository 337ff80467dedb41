"""Tables in files, each form of file in a module."""
