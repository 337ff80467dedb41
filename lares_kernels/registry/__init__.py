"""Choose the backend of a call: registry, circumstances, self-checks, failed plans."""
