"""A stand-in for Testcontainers' Ryuk, by its protocol.

Clients connect to port 8080 and say what is theirs, a line each, as filters: `label=a=b&label=c=d`; each line is answered
`ACK`. Once the last client is gone and none came back for a while, everything that a line describes is removed.
"""

import http.client
import json
import os
import socket
import socketserver
import threading
import urllib.parse

PATIENCE = 2 if os.environ.get("RYUK_RECONNECTION_TIMEOUT", "").startswith("2") else 10

filters = set()
clients = 0
changed = threading.Condition()


class Engine(http.client.HTTPConnection):
    def __init__(self):
        super().__init__("engine")

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect("/var/run/docker.sock")


def ask(method, path):
    engine = Engine()
    engine.request(method, path)
    answer = engine.getresponse()
    body = answer.read()
    return json.loads(body) if answer.status == 200 else None


class Client(socketserver.StreamRequestHandler):
    def handle(self):
        global clients
        with changed:
            clients += 1
            changed.notify()
        try:
            for line in self.rfile:
                with changed:
                    filters.add(line.decode().strip())
                self.wfile.write(b"ACK\n")
        except ConnectionError:
            pass  # A client that is killed says no goodbye.
        with changed:
            clients -= 1
            changed.notify()


def remove(line):
    wanted = {}
    for key, value in urllib.parse.parse_qsl(line):
        wanted.setdefault(key, []).append(value)
    query = urllib.parse.urlencode({"all": 1, "filters": json.dumps(wanted)})
    for container in ask("GET", f"/v1.44/containers/json?{query}") or []:
        ask("DELETE", f"/v1.44/containers/{container['Id']}?force=1&v=1")
    for network in ask("GET", f"/v1.44/networks?{query}") or []:
        ask("DELETE", f"/v1.44/networks/{network['Id']}")
    for volume in (ask("GET", f"/v1.44/volumes?{query}") or {}).get("Volumes") or []:
        ask("DELETE", f"/v1.44/volumes/{volume['Name']}?force=1")
    for image in ask("GET", f"/v1.44/images/json?{query}") or []:
        ask("DELETE", f"/v1.44/images/{image['Id']}?force=1")


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


with Server(("", 8080), Client) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print("Started", flush=True)
    with changed:
        changed.wait_for(lambda: clients > 0, timeout=60)
        while True:
            changed.wait_for(lambda: clients == 0)
            if not changed.wait_for(lambda: clients > 0, timeout=PATIENCE):
                break
    for line in filters:
        remove(line)
