"""What a call is: cores, parameters, layouts, draws and options, which every backend serves alike."""
