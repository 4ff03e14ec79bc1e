"""An object store on loopback for tests: the S3 API of moto's server, with faults, expired keys and counts of requests.

`with store_server() as store:` starts it in a process of its own; `python -m tests.store_server PORT` is that process.
"""

import contextlib
import json
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.waiting import soon

BUCKETS = ("lake", "landing")


@dataclass(frozen=True)
class StoreServer:
    """A running store, seen from a test."""

    url: str

    def call(self, what: str, **value: Any) -> Any:
        request = urllib.request.Request(f"{self.url}/_test/{what}", json.dumps(value).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())

    def fail(self, how: str, match: str = "", times: int = 1, every: int = 1, seconds: float = 0.0) -> None:
        """Let requests fail whose `METHOD path` matches a pattern: the first `times`, of these each `every`th.

        how: a status such as 500 or 503; `lost`: it is done, and the answer is 500; `slow`: it is done after `seconds`;
        `cut`: the connection is closed without an answer.
        """
        self.call("fail", how=how, match=match, times=times, every=every, seconds=seconds)

    def keys(self, *known: str) -> None:
        """Take these access keys alone; any, where none is given. Others are told that their token has expired."""
        self.call("keys", known=list(known))

    def most_at_once(self) -> int:
        """Return how many requests were in the server at once, at most, since this was last asked."""
        return int(self.call("most_at_once"))

    def requests(self, reset: bool = True) -> dict[str, int]:
        """Return how many requests came, by method and kind of place, since the last reset."""
        found: dict[str, int] = self.call("requests", reset=reset)
        return found

    def wait(self) -> None:
        def answers() -> bool:
            with contextlib.suppress(OSError):
                self.call("keys", known=[])
                return True
            return False

        soon(answers, f"{self.url} answers")


@contextlib.contextmanager
def store_server() -> Iterator[StoreServer]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-m", "tests.store_server", str(port)], stderr=subprocess.DEVNULL)
    try:
        store = StoreServer(f"http://127.0.0.1:{port}")
        store.wait()
        yield store
    finally:
        process.kill()
        process.wait()


# -- the server's own process


class Faulty:
    """What stands between a client and the store."""

    def __init__(self, store: Callable[..., Any]) -> None:
        self.store = store
        self.lock, self.conditional = threading.Lock(), threading.Lock()
        self.faults: list[dict[str, Any]] = []
        self.known: list[str] = []
        self.careless = False  # whether it does what is asked for whatever is there
        self.counts: Counter[str] = Counter()
        self.inside = self.most_inside = 0

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        path = environ["PATH_INFO"]
        if path.startswith("/_test/"):
            body = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
            answer = json.dumps(self.control(path.rpartition("/")[2], body)).encode()
            start("200 OK", [("Content-Length", str(len(answer)))])
            return [answer]
        with self.lock:
            self.inside += 1
            self.most_inside = max(self.most_inside, self.inside)
        try:
            return self.request(environ, start)
        finally:
            with self.lock:
                self.inside -= 1

    def request(self, environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        with self.lock:
            self.counts[f"{method} {kind(path, environ['QUERY_STRING'])}"] += 1
            fault = self.fault(f"{method} {path}?{environ['QUERY_STRING']}")
        key = re.search(r"Credential=([^/]+)/", environ.get("HTTP_AUTHORIZATION", ""))
        if self.known and (key is None or key[1] not in self.known):
            return refused(environ, start, "400 Bad Request", "ExpiredToken", "The provided token has expired.")
        how = fault["how"] if fault else ""
        if how == "cut":
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            return []
        if how.isdigit():
            return refused(environ, start, f"{how} Fault", "SlowDown" if how == "503" else "InternalError", "injected")
        if how == "slow":
            time.sleep(fault["seconds"])
        if how == "lost":
            b"".join(self.answer(environ, lambda *_: lambda data: None))
            return refused({**environ, "CONTENT_LENGTH": "0"}, start, "500 Fault", "InternalError", "it was lost")
        return self.answer(environ, start)

    def answer(self, environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        if "HTTP_IF_NONE_MATCH" in environ and environ["REQUEST_METHOD"] == "PUT":
            if self.careless:
                del environ["HTTP_IF_NONE_MATCH"]
            with self.conditional:  # in a store it is atomic; moto looks, and then writes
                return list(self.store(environ, start))
        return self.store(environ, start)

    def fault(self, request: str) -> dict[str, Any] | None:
        for fault in self.faults:
            if fault["times"] > 0 and re.search(fault["match"], request):
                fault["seen"] = fault.get("seen", 0) + 1
                if fault["seen"] % fault["every"] == 0:
                    fault["times"] -= 1
                    return fault
        return None

    def control(self, what: str, given: dict[str, Any]) -> Any:
        with self.lock:
            if what == "fail":
                self.faults = [*(f for f in self.faults if f["times"] > 0), given] if given["times"] else []
            elif what == "careless":
                self.careless = given["on"]
            elif what == "keys":
                self.known = given["known"]
            elif what == "most_at_once":
                most, self.most_inside = self.most_inside, self.inside
                return most
            elif what == "requests":
                counts = dict(self.counts)
                if given["reset"]:
                    self.counts.clear()
                return counts
        return {}


def refused(environ: dict[str, Any], start: Callable[..., Any], status: str, code: str, message: str) -> list[bytes]:
    environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    start(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]


def kind(path: str, query: str) -> str:
    """Return what a request is about: a listing, a log, a data file, headgate's own small files."""
    if path.count("/") < 2 or (path.endswith("/") and path.count("/") == 2):
        return "bucket delete" if "delete" in query else "list"
    parts = path.split("/")
    if "_delta_log" in parts:
        return "log"
    if path.endswith(".parquet"):
        return "data"
    return "own" if {"_staging", "_system"} & set(parts) else "other"


def serve(port: int) -> None:
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import run_simple
    from werkzeug.test import Client

    class Handler(MotoRequestHandler):
        protocol_version = "HTTP/1.1"

        def log(self, type: str, message: str, *args: Any) -> None:
            pass

    store = DomainDispatcherApplication(create_backend_app)
    for bucket in BUCKETS:
        assert Client(store).put(f"/{bucket}", headers={"Host": "127.0.0.1"}).status_code == 200
    app = Faulty(store)
    run_simple("127.0.0.1", port, app, threaded=True, request_handler=Handler)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
