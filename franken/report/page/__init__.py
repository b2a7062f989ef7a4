"""The page of a study: its sections, figures, tables and galleries in one self-contained file."""
