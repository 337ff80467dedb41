"""From measurements to rows, and from rows to pages and plots."""
