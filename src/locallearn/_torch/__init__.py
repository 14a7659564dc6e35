"""What PyTorch lacks: fake copies, byte and operator counters, devices, random state, torchvision on any build.

Imports `_utils`.
"""
