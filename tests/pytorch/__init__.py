"""Tests that need PyTorch, and Java for TorchServe: both come from `support.torchroot`."""
