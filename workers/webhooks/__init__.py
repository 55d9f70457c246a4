"""Delivery of webhooks: addresses that may be called, signatures, and the thread that sends."""
