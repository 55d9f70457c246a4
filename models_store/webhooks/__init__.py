"""Webhooks: URLs that are notified when jobs end, and the deliveries to them."""
