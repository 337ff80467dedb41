"""Specify a call: cores, parameters, layouts, draws and options, the same for every backend."""
