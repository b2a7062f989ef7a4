"""What training changed: checkpoints compared tensor by tensor, as a stream."""
