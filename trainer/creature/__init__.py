"""How the creature's Base is made: a fresh model, its alignment, and the lessons that follow."""
