"""Run the layered plan: layer by layer and step by step, for what no tile holds."""
