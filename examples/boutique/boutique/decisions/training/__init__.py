"""How the weights were made: ``python -m boutique.decisions.training.train`` makes them again, bit for bit."""
