"""Where everything runs: a Postgres server, processes that end with the test, and what checks found."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import psycopg2
import psycopg2.extras

NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def http(method, url, body=None, headers=(), timeout=120):
    """The status and the answer, as JSON where it is JSON."""
    request = urllib.request.Request(
        url,
        None if body is None else json.dumps(body).encode(),
        {'Content-Type': 'application/json', **dict(headers)},
        method=method,
    )
    try:
        with NO_PROXY.open(request, timeout=timeout) as answer:
            status, text = answer.status, answer.read().decode(errors='replace')
    except urllib.error.HTTPError as e:
        status, text = e.code, e.read().decode(errors='replace')
    try:
        return status, json.loads(text)
    except ValueError:
        return status, text


class Db:
    def __init__(self, url):
        self.c = psycopg2.connect(url)
        self.c.autocommit = True
        self.cursor = self.c.cursor(cursor_factory=psycopg2.extras.RealDictCursor)

    def rows(self, sql, *args):
        self.cursor.execute(sql, args or None)
        return self.cursor.fetchall() if self.cursor.description else []

    def one(self, sql, *args):
        return next(iter(self.rows(sql, *args)[0].values()))

    def insert(self, table, **row):
        row = {k: psycopg2.extras.Json(v) if isinstance(v, dict) else v for k, v in row.items()}
        self.rows(f'insert into "LiteLLM_{table}" ({",".join(row)}) values ({",".join(["%s"] * len(row))})', *row.values())


class Checks:
    def __init__(self):
        self.count, self.failed = 0, 0

    def __call__(self, ok, what, *details):
        self.count += 1
        self.failed += not ok
        print('ok  ' if ok else 'FAIL', what, *(details if not ok else ()), flush=True)
        return ok


class Machine:
    """Where everything runs: a Postgres server, installed releases, and the processes started here, which end with it."""

    def __init__(self, server, work, cache, daemon):
        self.server, self.work, self.cache, self.daemon = server, work, cache, daemon
        self.started, self.number, self.check = [], 0, Checks()
        self.postgres = Db(f'{server}/postgres')

    def database(self, name):
        """A new, empty database, and its address."""
        self.number += 1
        name = f'{name}_{self.number}'
        self.postgres.rows(f'create database {name}')
        return f'{self.server}/{name}'

    def start(self, name, command, env):
        base = {k: os.environ[k] for k in ('PATH', 'LANG', 'LD_LIBRARY_PATH') if k in os.environ}  # no proxies, nobody's settings
        with open(f'{self.work}/{name}.log', 'ab') as log:
            process = subprocess.Popen(
                command,
                env={**base, 'HOME': self.work, **env},
                cwd=self.work,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # so that all it starts ends with it
            )
        self.started.append(process)
        return process

    def log(self, name):
        return open(f'{self.work}/{name}.log', errors='replace').read()

    def end(self, process, how=signal.SIGTERM):
        process.send_signal(how)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            pass
        try:
            os.killpg(process.pid, signal.SIGKILL)  # what it left behind
        except ProcessLookupError:
            pass
        process.wait()
        self.started.remove(process)

    def end_all(self):
        for p in reversed(list(self.started)):
            self.end(p)

    def wait(self, name, process, ready, seconds=300):
        began = time.monotonic()
        while True:
            try:
                if ready():
                    return time.monotonic() - began
            except OSError:
                pass
            if process.poll() is not None or time.monotonic() - began > seconds:
                sys.exit(f'{name} did not start:\n{self.log(name)[-4000:]}')
            time.sleep(0.2)
