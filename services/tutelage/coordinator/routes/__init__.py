"""The HTTP face: every route is one transaction over one function of the rooms above."""
