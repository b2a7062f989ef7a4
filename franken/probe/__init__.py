"""Where does the model see, where does it reason? Causal probing, layer by layer."""
