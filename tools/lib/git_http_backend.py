"""Runs stock git-http-backend behind nginx and fcgiwrap, for comparison in benchmarks.

Everything lives in one folder and listens on loopback; stop() ends just the processes that were
started here. Needs the distribution's nginx, fcgiwrap and git.
"""
import os
import shutil
import signal
import socket
import subprocess
import time

NGINX_CONF = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log warn;
worker_processes 1;
events {{ worker_connections 512; }}
http {{
  access_log off;
  client_max_body_size 0;
  keepalive_requests 1000000;
  client_body_temp_path {folder}/body;
  fastcgi_temp_path {folder}/fastcgi;
  proxy_temp_path {folder}/proxy;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      include /etc/nginx/fastcgi_params;
      fastcgi_param SCRIPT_FILENAME {backend};
      fastcgi_param GIT_HTTP_EXPORT_ALL "";
      fastcgi_param GIT_PROJECT_ROOT {folder}/repositories;
      fastcgi_param PATH_INFO $uri;
      fastcgi_param HTTP_GIT_PROTOCOL $http_git_protocol;
      fastcgi_request_buffering off;
      fastcgi_read_timeout 1h;
      fastcgi_pass unix:{folder}/fcgi.sock;
    }}
  }}
}}
"""
START_SECONDS_MAX = 10


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class GitHttpBackend:
    """One nginx, one fcgiwrap with `children` processes, repositories with core.fsync=all."""

    def __init__(self, folder, children=8):
        self.folder = os.path.abspath(folder)
        self.children = children
        self.port = free_port()
        self.processes = []

    def start(self):
        os.makedirs(os.path.join(self.folder, "repositories"), exist_ok=True)
        backend = os.path.join(
            subprocess.check_output(["git", "--exec-path"], text=True).strip(), "git-http-backend")
        conf = os.path.join(self.folder, "nginx.conf")
        with open(conf, "w") as f:
            f.write("user root;\n" if os.getuid() == 0 else "")
            f.write(NGINX_CONF.format(folder=self.folder, port=self.port, backend=backend))
        fcgi = shutil.which("fcgiwrap") or "/usr/sbin/fcgiwrap"
        nginx = shutil.which("nginx") or "/usr/sbin/nginx"
        self._spawn([fcgi, "-c", str(self.children), "-s",
                     "unix:" + os.path.join(self.folder, "fcgi.sock")], "fcgiwrap.log")
        self._wait(lambda: os.path.exists(os.path.join(self.folder, "fcgi.sock")), "fcgiwrap")
        self._spawn([nginx, "-p", self.folder, "-c", conf], "nginx.out")
        self._wait(self._answers, "nginx")

    def path_of(self, name):
        return os.path.join(self.folder, "repositories", name + ".git")

    def create(self, name):
        path = self.path_of(name)
        subprocess.run(["git", "init", "-q", "--bare", path], check=True)
        for key, value in (("core.fsync", "all"), ("http.receivepack", "true"), ("gc.auto", "0")):
            subprocess.run(["git", "-C", path, "config", key, value], check=True)
        return f"http://127.0.0.1:{self.port}/{name}.git"

    def stop(self):
        for process in reversed(self.processes):
            os.killpg(process.pid, signal.SIGTERM)   # fcgiwrap's children do not go with it
        for process in self.processes:
            process.wait(timeout=10)
        self.processes = []

    def _spawn(self, command, log):
        with open(os.path.join(self.folder, log), "wb") as out:
            self.processes.append(
                subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL,
                                 start_new_session=True))

    def _answers(self):
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", self.port)) == 0

    def _wait(self, ready, what):
        deadline = time.monotonic() + START_SECONDS_MAX
        while not ready():
            if time.monotonic() > deadline or self.processes[-1].poll() is not None:
                raise RuntimeError(f"{what} did not start; see its log in {self.folder}")
            time.sleep(0.02)
