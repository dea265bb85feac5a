"""smarthost.py ADDRESS PORT CERTIFICATE KEY: a mail provider's server, which prints each message as JSON.

It offers STARTTLS, and after that AUTH PLAIN; it accepts what comes over TLS from relay:pass-word.
"""

import base64
import json
import socketserver
import ssl
import sys

ADDRESS, PORT, CERTIFICATE, KEY = sys.argv[1:]
CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
CONTEXT.load_cert_chain(CERTIFICATE, KEY)
CREDENTIALS = base64.b64encode(b"\0relay\0pass-word").decode()


class Session(socketserver.BaseRequestHandler):
    """One connection."""

    def handle(self):
        self.tls = self.authenticated = False
        self.stream = self.request.makefile("rwb")
        self.say("220 smarthost")
        while line := self.stream.readline():
            verb, _, rest = line.decode().strip().partition(" ")
            reply = getattr(self, "on_" + verb.lower(), None)
            self.say(reply(rest) if reply else "250 ok")

    def say(self, reply):
        self.stream.write(reply.encode() + b"\r\n")
        self.stream.flush()
        if reply.startswith("220 go"):
            self.request = CONTEXT.wrap_socket(self.request, server_side=True)
            self.stream = self.request.makefile("rwb")
            self.tls = True

    def on_ehlo(self, _):
        return "250-smarthost\r\n250 " + ("AUTH PLAIN" if self.tls else "STARTTLS")

    def on_starttls(self, _):
        return "220 go"

    def on_auth(self, rest):
        self.authenticated = self.tls and rest == "PLAIN " + CREDENTIALS
        return "235 ok" if self.authenticated else "535 no"

    def on_mail(self, rest):
        self.mail = {"sender": rest, "recipients": []}
        return "250 ok" if self.authenticated else "530 authenticate first"

    def on_rcpt(self, rest):
        self.mail["recipients"].append(rest)
        return "250 ok"

    def on_data(self, _):
        self.say("354 go on")
        for line in self.stream:
            if line == b".\r\n":
                break
        print(json.dumps(self.mail), flush=True)
        return "250 ok"


socketserver.ThreadingTCPServer.allow_reuse_address = True
with socketserver.ThreadingTCPServer((ADDRESS, int(PORT)), Session) as server:
    server.serve_forever()
