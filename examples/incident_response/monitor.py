"""Monitoring that raises an alert: a webhook, signed as Standard Webhooks are, with the secret that the hub has too.

It is given the webhook's address, the incident's id and the service: http://127.0.0.1:7337/hooks/alert INC-1 checkout
"""

import base64
import hmac
import json
import os
import sys
import time
import urllib.error
import urllib.request


def main(url: str, incident: str, service: str) -> int:
    secret = base64.b64decode(os.environ["ALERT_WEBHOOK_SECRET"].removeprefix("whsec_"))
    body = json.dumps({"id": incident, "service": service, "status": "firing"}).encode()
    at = str(int(time.time()))
    mac = hmac.digest(secret, f"{incident}.{at}.".encode() + body, "sha256")
    headers = {
        "Content-Type": "application/json",
        "webhook-id": incident,
        "webhook-timestamp": at,
        "webhook-signature": f"v1,{base64.b64encode(mac).decode()}",
    }
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=30) as answer:
            print(answer.status, answer.read().decode())
    except urllib.error.HTTPError as refused:
        with refused:
            print(refused.code, refused.read().decode())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
