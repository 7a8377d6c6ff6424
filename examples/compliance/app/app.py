"""A page where a technician types a description and sees the label.

    python app.py [--port 8300]

The endpoint's address and key come from ENDPOINT_URL and ENDPOINT_KEY, else from the yard with your own token. The browser sees neither.
"""

import argparse
import json
import os
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PAGE = Path(__file__).with_name("index.html").read_bytes()
LONGEST = 2000


def endpoint() -> tuple[str, str]:
    url, key = os.environ.get("ENDPOINT_URL"), os.environ.get("ENDPOINT_KEY")
    if url and key:
        return url, key
    from modelyard import MLClient

    client = MLClient()
    found = client.online_endpoints.get(os.environ.get("ENDPOINT_NAME", "compliance"))
    return str(found.scoring_uri), str(client.online_endpoints.get_keys(found.name).primary_key)


class Handler(BaseHTTPRequestHandler):
    url = key = ""

    def do_GET(self) -> None:
        if self.path == "/":
            self.answer(200, PAGE, "text/html; charset=utf-8")
        else:
            self.answer(404, b"not found", "text/plain")

    def do_POST(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        if self.path != "/check" or length > 4 * LONGEST:
            self.answer(404 if self.path != "/check" else 413, b"{}", "application/json")
            return
        try:
            text = json.loads(self.rfile.read(length))["description"]
        except (ValueError, KeyError, TypeError):
            text = ""
        if not isinstance(text, str) or not text.strip() or len(text) > LONGEST:
            self.answer(400, json.dumps({"error": f"Describe the component in 1 to {LONGEST} characters."}).encode(), "application/json")
            return
        body = json.dumps({"input_data": {"columns": ["description"], "data": [[text]]}}).encode()
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url, body, headers), timeout=15) as response:
                label = json.load(response)[0]
                prediction = response.headers.get("x-yard-prediction-id")
        except (urllib.error.URLError, OSError, ValueError, IndexError) as error:
            print(f"the endpoint did not answer: {error}", flush=True)
            self.answer(
                502, json.dumps({"error": "The model does not answer at present. Try again in a moment."}).encode(), "application/json"
            )
            return
        self.answer(200, json.dumps({"label": label, "prediction": prediction}).encode(), "application/json")

    def answer(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header(
            "Content-Security-Policy", "default-src 'self'; style-src 'self' 'unsafe-inline'; script-src 'self' 'unsafe-inline'"
        )
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8300)
    arguments = parser.parse_args()
    Handler.url, Handler.key = endpoint()
    server = ThreadingHTTPServer(("127.0.0.1", arguments.port), Handler)
    print(f"open http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
