"""What stands before an MLflow in a company: it lets in whoever has the token, and logs in for them. And a chat's webhook, which keeps what it is told.

MLflow itself knows users and passwords only; tokens are for what stands before it.
"""

import os

import requests
from flask import Flask, Response, jsonify, request

app = Flask(__name__)
told: list[object] = []


@app.post("/hooks/<path:key>")
def hook(key: str) -> Response:
    """A notice, for whoever knows the address."""
    if key != os.environ["HOOK"]:
        return Response(status=404)
    told.append(request.get_json())
    return jsonify(told)


@app.get("/told")
def what_was_told() -> Response:
    """All notices so far."""
    return jsonify(told)


@app.route("/mlflow/<path:path>", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
def mlflow(path: str) -> Response:
    """MLflow's answer."""
    if request.headers.get("Authorization") != f"Bearer {os.environ['TOKEN']}":
        return Response("who are you?", status=401)
    login = (os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"])
    given = {name: value for name, value in request.headers if name.lower() in ("content-type", "accept")}
    answer = requests.request(
        request.method, f"http://mlflow:5000/mlflow/{path}", params=request.args, data=request.get_data(), headers=given, auth=login, timeout=60
    )  # fmt: skip
    return Response(answer.content, answer.status_code, {"Content-Type": answer.headers.get("Content-Type", "")})


app.run(host="0.0.0.0", port=9000, threaded=True)
