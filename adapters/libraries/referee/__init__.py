"""The attacks as their papers have them, in NumPy on the protocol: what the libraries are compared with."""
