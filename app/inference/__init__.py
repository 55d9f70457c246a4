"""Routes of the Open Inference Protocol v2, which clients of KServe and Triton speak."""
