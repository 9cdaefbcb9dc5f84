"""Executables that run CUDA sources on the CPU emulator, plain or under a sanitizer."""
