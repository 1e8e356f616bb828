"""The Open Inference Protocol: routes, tensors, bodies and answers."""
