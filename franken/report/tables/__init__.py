"""Tables: one object that is printed on a terminal, or written as CSV, LaTeX or JSON."""
