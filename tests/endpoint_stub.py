"""A local server that speaks OpenAI's chat completions, and keeps what it was asked."""

import json
import threading
from collections.abc import Callable
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Stub(ThreadingHTTPServer):
    """Answers with what it was asked; `faults` are replies to give first, as (status, body,
    headers).
    """

    def __init__(self, port=0):
        super().__init__(("127.0.0.1", port), Handler)
        self.asked, self.headers, self.faults, self.choice = [], [], [], {}
        self.misbehave: Callable[[Handler], None] | None = (
            None  # called with the handler in place of an answer
        )

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):  # noqa: N802
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(body)
        self.server.headers.append(dict(self.headers) | {"path": self.path})
        if self.server.misbehave:
            self.server.misbehave(self)
            return
        messages = body.get("messages", [{"content": [{"text": ""}]}])
        content = messages[0]["content"]
        asked = content if isinstance(content, str) else content[-1]["text"]
        said = f"{asked} {body.get('seed', 'greedy')} "
        choice = {"message": {"content": said}, "finish_reason": "stop"} | self.server.choice
        choice.setdefault("logprobs", {"content": [{"token": "a", "logprob": -0.5}]})
        fault = self.server.faults.pop(0) if self.server.faults else None
        status, answer, headers = fault or (200, {"choices": [choice]}, {})
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer if isinstance(answer, bytes) else json.dumps(answer).encode())

    def log_message(self, *_):
        pass


@contextmanager
def serving(port=0):
    """A Stub that answers for as long as the block runs."""
    server = Stub(port)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
