"""Signatures of deliveries, as Standard Webhooks has them."""

import base64
import hashlib
import hmac


def sign(secret: str, *, message_id: str, timestamp: int, body: bytes) -> str:
    """Return the header `webhook-signature` of a delivery.

    Args:
        secret: Secret of the webhook, `whsec_` and base64.
        message_id: Id of the delivery, the same at each attempt.
        timestamp: Time of the attempt, in seconds since 1970.
        body: Body of the request.
    """
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
