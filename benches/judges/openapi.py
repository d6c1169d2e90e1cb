"""The origin judged by its own OpenAPI document: openapi.py PROGRAM SCHEMATHESIS.

Starts PROGRAM (weir-origin) on an empty SQLite file, makes an administrator, and lets schemathesis ask everything that the document
has, as it says and as it does not. Ends with schemathesis's status: 0 when document and service agree.
"""

import base64
import hashlib
import hmac
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request

SECRET = "only for this judge, thirty-two bytes and more"
EMAIL, PASSWORD = "judge@example.org", "correct horse battery staple"
# Seconds in all, and examples of each operation in each phase: enough to find again what was once found.
SECONDS, EXAMPLES = 50, 25

# What no schema can say: cursors and tokens are signed, and a made-up one is refused like any other wrong value.
CONFIG = """
[[operations]]
include-method = "GET"
checks.positive_data_acceptance.expected-statuses = ["2xx", 400, 401, 403, 404]

[[operations]]
include-name = "POST /auth/verify-email"
checks.positive_data_acceptance.expected-statuses = ["2xx", 422]
"""


def signed(claims):
    """A JWT as the edge would sign it (RFC 7515, HS256)."""
    part = lambda value: base64.urlsafe_b64encode(value).rstrip(b"=")
    head = part(b'{"alg":"HS256"}') + b"." + part(json.dumps(claims).encode())
    return (head + b"." + part(hmac.digest(SECRET.encode(), head, hashlib.sha256))).decode()


def post(base, path, body):
    head = {"content-type": "application/json"}
    request = urllib.request.Request(base + path, json.dumps(body).encode(), head, method="POST")
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def judge(base, program, schemathesis, environment):
    who = {"email": EMAIL, "password": PASSWORD}
    account = post(base, "/auth/register", who)
    subprocess.run([program, "roles", EMAIL, "user", "admin"], env=environment, check=True)
    session = post(base, "/auth/login", who)["token"]
    claims = {"sub": account["id"], "iss": "weir", "roles": ["user", "admin"], "exp": int(time.time()) + 3600}
    with open(os.path.join(environment["HOME"], "schemathesis.toml"), "w") as config:
        config.write(CONFIG)
    arguments = ["run", base + "/openapi.json", "--checks", "all", "--mode", "all", "--max-time", str(SECONDS)]
    arguments += ["--max-examples", str(EXAMPLES), "--seed", "1", "--generation-database", "none", "--warnings", "off"]
    arguments += ["--header", "x-weir-identity:" + signed(claims), "--header", "Authorization:Bearer " + session]
    return subprocess.run([schemathesis, *arguments], cwd=environment["HOME"], env=environment).returncode


def main(program, schemathesis):
    program, schemathesis = os.path.abspath(program), os.path.abspath(schemathesis)
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {
            "HOME": folder,
            "WEIR_DATABASE_URL": f"sqlite://{folder}/judge.db",
            "WEIR_IDENTITY_SECRET": SECRET,
            # Thousands of log-ins, some of them with passwords: what is judged is not how long they take.
            "WEIR_ARGON2_MEMORY": "8",
            "WEIR_ARGON2_PASSES": "1",
            "RUST_LOG": "error",
        }
        serve = [program, "serve", "--listen", "127.0.0.1:0"]
        origin = subprocess.Popen(serve, env=environment, stdout=subprocess.PIPE, text=True)
        try:
            line = origin.stdout.readline()
            if not line.startswith("listening on "):
                sys.exit(f"{program} does not start")
            return judge("http://" + line.split()[-1], program, schemathesis, environment)
        finally:
            origin.terminate()
            origin.wait()


sys.exit(main(*sys.argv[1:]))
