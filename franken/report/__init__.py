"""Figures and the page. Reads run folders only; never loads a model."""
