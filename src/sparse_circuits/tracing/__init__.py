"""Tracing: circuits of features grown layer by layer, by ablation or by gradient, and validated."""
