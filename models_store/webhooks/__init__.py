"""Webhooks: addresses that are told when jobs end, and the deliveries to them."""
