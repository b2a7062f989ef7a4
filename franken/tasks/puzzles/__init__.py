"""The eighteen puzzle types of AlgoPuzzleVQA (Ghosal et al., 2024, arXiv:2403.03864), written
afresh.

One module a type. Each holds a frozen state, the questions that can be asked about it, and an exact
solver `solve(state, query) -> Solved`: no heuristic, and a sentence of proof with every answer.
"""
