"""What models run on, each imported where it is used: encoders and Llama by graphs of our own, and other libraries.

Files of weights are read in ``models/formats``; who waits for whom is the affair of ``models/serving``.
"""
