"""The mini-service that imagelab replaces, for comparing the two.

Serves on port PORT of HOST, which is 127.0.0.1, or on a free one, which it prints,
until it is killed.
"""

import hashlib
import hmac
import os
import time

from flask import Flask, Response, jsonify
from werkzeug.serving import make_server

app = Flask(__name__)
started = time.monotonic()


@app.get("/")
def index():
    rocket = os.environ.get("ROCKET_SIZE", "Small")
    return Response(f"Hello from Docker! Rocket={rocket}\n", mimetype="text/html")


@app.get("/health")
def health():
    return jsonify(status="ok", uptime=round(time.monotonic() - started, 2))


@app.get("/proof")
def proof():
    secret = os.environ.get("SECRET")
    if not secret:
        return jsonify(error="no-secret"), 400
    login = os.environ.get("LAB_LOGIN") or "unknown"
    token = os.environ.get("LAB_TOKEN") or "unknown"
    digest = hmac.new(secret.encode(), f"{login}:{token}".encode(), hashlib.sha256)
    return jsonify(ok=True, login=login, proof=digest.hexdigest())


if __name__ == "__main__":
    host = os.environ.get("HOST", "127.0.0.1")
    server = make_server(host, int(os.environ.get("PORT", "0")), app)
    print(server.server_port, flush=True)
    server.serve_forever()
