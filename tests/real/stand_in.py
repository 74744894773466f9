"""An OpenAI-compatible server in LiteLLM's place: it lists every model, whatever LiteLLM's rows say, and always answers the same."""

import http.server
import json

from world import SERVED

ANSWER = 'the stand-in says hello'


class StandIn(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def answer(self, body, kind='application/json'):
        body = body.encode()
        self.send_response(200)
        self.send_header('Content-Type', kind)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer(
            json.dumps({'object': 'list', 'data': [{'id': m, 'object': 'model', 'created': 1, 'owned_by': 'x'} for m in SERVED]})
        )

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers.get('Content-Length') or 0)) or '{}')
        reply = {'id': 'c', 'created': 1, 'model': asked.get('model')}
        if not asked.get('stream'):
            message = {'role': 'assistant', 'content': ANSWER}
            return self.answer(
                json.dumps(
                    {**reply, 'object': 'chat.completion', 'choices': [{'index': 0, 'message': message, 'finish_reason': 'stop'}]}
                )
            )
        parts = [({'role': 'assistant', 'content': ANSWER}, None), ({}, 'stop')]
        chunks = [
            {**reply, 'object': 'chat.completion.chunk', 'choices': [{'index': 0, 'delta': d, 'finish_reason': f}]}
            for d, f in parts
        ]
        self.answer(''.join(f'data: {json.dumps(c)}\n\n' for c in chunks) + 'data: [DONE]\n\n', 'text/event-stream')

    def log_message(self, *_):
        pass
