"""What does RL really change in a vision-language model? Probe, diff, merge, freeze, train. Imports
nothing by itself.
"""
