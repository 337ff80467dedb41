"""Cross entropy, log-probabilities, top-k and ranks over a catalogue that never becomes a matrix."""
