"""A small Hugging Face Hub for tests: the real clients talk to it over loopback, nothing is mocked.

    with HubServer(tmp_path / "hub") as hub:             # free port, background thread, loopback only
        os.environ.update(hub.env(tmp_path / "home"))    # BEFORE huggingface_hub is imported, it reads them once
        hub.fault("status", path="/commit/", status=503) # the next commit request fails
    python -m tests.hub.server --root DIR --port 8080 --token hf_x:alice:write [--fail-rate 0.1 --seed 0]

On disk: ROOT/models/NS/NAME/{repo.json, commits/SHA.json, objects/SHA256}; every write is atomic.
Needs the standard library and PyYAML (which huggingface_hub requires anyway). Not there: Xet, the git protocol,
one-segment ids, move, squash, the dataset viewer. Storage: store.py; card rules, a subset: cards.py.
"""

import argparse
import dataclasses
import hmac
import json
import math
import random
import re
import secrets
import socket
import struct
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from tests.hub.cards import NAME
from tests.hub.endpoints import ROUTES
from tests.hub.store import KINDS, HubError, Repo


@dataclasses.dataclass
class Fault:
    """kind: status (answer `status`, do nothing) | cut (reset the connection while the request body is read) | lost
    (do the work, reset instead of answering) | truncate (send half the body, close) | reset (send half, reset) |
    corrupt (flip the first byte of the body) | delay (wait `seconds`, then serve)."""

    kind: str
    path: str = ""  # regular expression searched in the request path
    method: str = ""
    times: int = 1
    skip: int = 0  # let this many matching requests through first
    status: int = 503
    retry_after: int | None = None
    after_bytes: int = 0  # for cut: how much of the request body to read first
    seconds: float = 0.0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: "HubServer"

    def log_message(self, *args):
        pass

    def handle_one_request(self):
        try:
            super().handle_one_request()
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def hang_up(self):
        """Reset the connection, as a failing network would."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        raise ConnectionAbortedError

    def read_body(self, limit: float = math.inf):
        body = tempfile.SpooledTemporaryFile(8 * 2**20)
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body.write(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
        left = min(int(self.headers.get("Content-Length") or 0), limit)
        while left and (chunk := self.rfile.read(min(left, 2**20))):
            left -= body.write(chunk)
        size = body.tell()
        body.seek(0)
        return body, size

    def dispatch(self):
        url = urlsplit(self.path)
        self.url_path, self.query = url.path, {k: v[-1] for k, v in parse_qs(url.query).items()}
        self.user, self.role, self.fault = None, None, None
        self.record = {
            "method": self.command,
            "path": url.path,
            "query": self.query,
            "status": None,
            **{key: self.headers.get(key) for key in ("host", "authorization", "range", "user-agent")},
        }
        if not url.path.startswith("/_admin"):
            self.hub.requests.append(self.record)
            self.fault = self.hub.next_fault(self.command, url.path)
        if self.fault and self.fault.kind == "cut":
            self.read_body(self.fault.after_bytes)
            self.hang_up()
        self.body, self.record["bytes"] = self.read_body()
        try:
            self.fail()
            self.authenticate()
            self.reply(*self.answer(url.path))
        except HubError as error:
            self.reply(error.status, {"error": error.message}, error.headers)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            self.reply(400, {"error": f"Malformed request: {error!r}"})

    def fail(self):
        """The faults that strike before any work."""
        if self.fault and self.fault.kind == "delay":
            threading.Event().wait(self.fault.seconds)
        if self.fault and self.fault.kind == "status":
            wait = self.fault.retry_after
            extra = {} if wait is None else {"Retry-After": str(wait), "RateLimit": f'"api";r=0;t={wait}'}
            raise HubError(self.fault.status, "Injected fault", **extra)

    def answer(self, path: str) -> tuple:
        for method, regex, function in ROUTES:
            if method == self.command.replace("HEAD", "GET") and (match := regex.fullmatch(path)):
                with self.hub.lock:
                    result = function(self, **{k: unquote(v) for k, v in match.groupdict("").items()})
                return result if isinstance(result, tuple) else (200, result)
        raise HubError(404, f"No such endpoint on the test hub: {self.command} {path}")

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = dispatch

    def reply(self, status: int, body=None, headers: dict | None = None):
        """`body`: something for JSON, or (path, start, stop) of a file on disk."""
        kind, headers = self.fault and self.fault.kind, {"X-Request-Id": secrets.token_hex(8), **(headers or {})}
        if isinstance(body, tuple):
            with open(body[0], "rb") as f:
                f.seek(body[1])
                data = f.read(body[2] - body[1])
        else:
            data = b"" if body is None else json.dumps(body).encode()
            headers.setdefault("Content-Type", "application/json; charset=utf-8")
        self.record["status"] = status
        if kind == "lost":
            self.hang_up()
        if kind == "corrupt" and data:
            data = bytes([data[0] ^ 255]) + data[1:]
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if kind in ("truncate", "reset") else data)
            self.close_connection = self.close_connection or kind == "truncate"
            if kind == "reset":
                self.wfile.flush()
                self.hang_up()

    # -- who asks, and for what
    def authenticate(self):
        header = self.headers.get("Authorization")
        if header and not self.url_path.startswith("/_"):  # /_... addresses carry their own signature
            if not (found := self.hub.tokens.get(header.removeprefix("Bearer ").strip())):
                raise HubError(401, "Invalid credentials in Authorization header")
            self.user, self.role = found

    def namespaces(self) -> set[str | None]:
        return {self.user} | {org for org, members in self.hub.orgs.items() if self.user in members}

    def require(self, namespace: str | None = None, write: bool = True):
        """A user, a token that may write, and (given a namespace) the right to write there."""
        if not self.user:
            raise HubError(401, "Invalid username or password.")
        if write and (self.role != "write" or (namespace or self.user) not in self.namespaces()):
            raise HubError(403, f"Forbidden: this token has no write access to {namespace or 'anything'}")

    def repo(self, kind: str, repo: str, write: bool = False, read: bool = False) -> Repo:
        """The repository; a private one looks exactly like a missing one to those who may not see it."""
        path, mine = self.hub.repo_path(kind, repo), self.user and repo.split("/")[0] in self.namespaces()
        found = Repo(path) if path and (path / "repo.json").exists() else None
        if not found or (found.state["private"] and not mine):
            raise HubError(404 if self.user else 401, "Repository not found", "RepoNotFound")
        if read and found.state["gated"] and not mine:
            raise HubError(403 if self.user else 401, f"Access to {repo} is restricted", "GatedRepo")
        if write:
            self.require(repo.split("/")[0])
        return found

    def json(self) -> dict:
        return json.loads(self.body.read() or b"{}")

    def flag(self, name: str) -> bool:
        return self.query.get(name, "").lower() in ("1", "true")


class HubServer:
    """`tokens`: {token: (user, "write" or "read")}; `orgs`: {org: [members]}; `fail_rate`: share of 503 answers.
    `requests` lists what was asked, in order."""

    def __init__(
        self, root, *, tokens=None, orgs=None, port=0, fail_rate=0.0, seed=0, part_size=16 * 2**20, page_size=1000
    ):
        self.root, self.orgs = Path(root).resolve(), orgs or {"acme": ["user"]}
        self.tokens = tokens or {
            "hf_write": ("user", "write"),
            "hf_read": ("user", "read"),
            "hf_other": ("other", "write"),
        }
        self.fail_rate, self.random = fail_rate, random.Random(seed)
        self.part_size, self.page_size = part_size, page_size
        self.faults, self.requests, self.lock, self.secret = [], [], threading.RLock(), secrets.token_bytes(16)
        self.httpd = ThreadingHTTPServer(("127.0.0.1", port), type("BoundHandler", (Handler,), {"hub": self}))
        self.httpd.daemon_threads = True
        self.port = self.httpd.server_address[1]
        self.url, self.storage = f"http://127.0.0.1:{self.port}", f"http://localhost:{self.port}"

    def __enter__(self):
        self.thread = threading.Thread(target=self.httpd.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *exc):
        self.httpd.shutdown()
        self.httpd.server_close()
        self.thread.join()

    def env(self, home=None, token="hf_write") -> dict[str, str]:
        """Environment that points every Hugging Face client at this server (set it before importing them)."""
        out = {
            "HF_ENDPOINT": self.url,
            "HF_TOKEN": token,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_OFFLINE": "0",
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }
        return out | ({"HF_HOME": str(home)} if home else {})

    def fault(self, kind: str, **options) -> Fault:
        self.faults.append(Fault(kind, **options))
        return self.faults[-1]

    def clear_faults(self) -> None:
        self.faults.clear()
        self.fail_rate = 0.0

    def next_fault(self, method: str, path: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.times > 0 and re.search(fault.path, path) and fault.method in ("", method):
                    if not fault.skip:
                        fault.times -= 1
                        return fault
                    fault.skip -= 1
            return Fault("status") if self.random.random() < self.fail_rate else None

    def repo_path(self, kind: str, repo: str) -> Path | None:
        valid = kind in KINDS and repo.count("/") == 1 and all(NAME.fullmatch(p) for p in repo.split("/"))
        return self.root / kind / repo if valid else None

    def web(self, kind: str, repo_id: str) -> str:
        return f"{self.url}/{'' if kind == 'models' else kind + '/'}{repo_id}"

    def sign(self, path: str) -> str:
        mac = hmac.new(self.secret, path.encode(), "sha256").hexdigest()[:32]
        return f"{self.storage}{path}{'&' if '?' in path else '?'}sig={mac}"

    def signed_repo(self, path: str, kind: str, repo: str) -> Repo:
        if not hmac.compare_digest(self.sign(re.split("[?&]sig=", path)[0]), self.storage + path):
            raise HubError(403, "Bad signature")
        return Repo(self.repo_path(kind, repo))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="./hub-data")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--token", action="append", metavar="TOKEN:USER:ROLE", help="ROLE is read or write")
    parser.add_argument("--fail-rate", type=float, default=0.0, help="share of requests answered with 503")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    tokens = {t: (user, role) for t, user, role in (x.split(":") for x in args.token or [])}
    with HubServer(args.root, port=args.port, tokens=tokens, fail_rate=args.fail_rate, seed=args.seed) as hub:
        lines = [f"export {k}={v}\n" for k, v in hub.env(token=next(iter(hub.tokens))).items()]
        sys.stdout.write("".join(lines))
        sys.stdout.flush()
        try:
            hub.thread.join()
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main()
