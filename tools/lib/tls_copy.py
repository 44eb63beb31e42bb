"""A plain copy of files through TLS on this machine, to compare with: one process reads files and sends
them over one connection, another writes each and syncs it, and says at the end that all are durable.

Python's ssl module is OpenSSL, as in the nodes. Buffers of 1 MiB; the files are mapped, so sending
copies nothing but what TLS makes of it.
"""
import json
import mmap
import os
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import time

from processes import Problem, pick_ports

BUFFER_BYTES = 1 << 20
DONE = b"all durable"
LISTEN_SECONDS_MAX = 20


def receive(port, folder, certificate, key):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", port)) as server:
        server.settimeout(LISTEN_SECONDS_MAX)
        print("listens", flush=True)
        plain, _ = server.accept()
    buffer = memoryview(bytearray(BUFFER_BYTES))
    with context.wrap_socket(plain, server_side=True) as connection:
        number = 0
        while True:
            size = struct.unpack(">q", exactly(connection, 8))[0]
            if size < 0:
                break
            with open(os.path.join(folder, str(number)), "wb") as f:
                while size > 0:
                    # One read of TLS gives 16 KiB at most: gathered, so that writes are large.
                    filled = 0
                    while filled < min(size, BUFFER_BYTES):
                        got = connection.recv_into(buffer[filled:min(size, BUFFER_BYTES)])
                        if got == 0:
                            raise ConnectionError("the sender is gone")
                        filled += got
                    f.write(buffer[:filled])
                    size -= filled
                f.flush()
                os.fsync(f.fileno())
            number += 1
        connection.sendall(DONE)


def exactly(connection, count):
    data = b""
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            raise ConnectionError("the other side is gone")
        data += part
    return data


def send(port, ca):
    """The files named on standard input; prints bytes and seconds."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(ca)
    paths = sys.stdin.read().split("\n")
    total, begin = 0, time.monotonic()
    with context.wrap_socket(socket.create_connection(("127.0.0.1", port))) as connection:
        for path in paths:
            try:
                f = open(path, "rb")
            except FileNotFoundError:  # replaced meanwhile
                continue
            with f:
                size = os.fstat(f.fileno()).st_size
                connection.sendall(struct.pack(">q", size))
                if size == 0:
                    continue
                with mmap.mmap(f.fileno(), size, prot=mmap.PROT_READ) as content:
                    with memoryview(content) as view:
                        for at in range(0, size, BUFFER_BYTES):
                            with view[at:at + BUFFER_BYTES] as part:
                                connection.sendall(part)
                total += size
        connection.sendall(struct.pack(">q", -1))
        exactly(connection, len(DONE))
    print(json.dumps({"bytes": total, "seconds": time.monotonic() - begin}))


def copy(paths, folder, certs, name, seconds=3600):
    """(bytes, seconds) of one copy of the files into the folder, which is emptied again."""
    port = pick_ports(1)[0]
    target = os.path.join(folder, "tls-copy")
    os.mkdir(target)
    receiver = subprocess.Popen(
        [sys.executable, __file__, "receive", str(port), target, f"{certs}/{name}.crt",
         f"{certs}/{name}.key"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    try:
        if receiver.stdout.readline() != b"listens\n":
            raise Problem("The receiver of the reference copy does not listen.")
        sent = subprocess.run([sys.executable, __file__, "send", str(port), f"{certs}/ca.crt"],
                              input="\n".join(paths), capture_output=True, text=True,
                              timeout=seconds)
        if sent.returncode != 0 or receiver.wait(60) != 0:
            raise Problem(f"The reference copy fails: {sent.stderr.strip()}")
    finally:
        if receiver.poll() is None:
            receiver.kill()
            receiver.wait()
        receiver.stdout.close()
        shutil.rmtree(target)
    result = json.loads(sent.stdout)
    return result["bytes"], result["seconds"]


if __name__ == "__main__":
    if sys.argv[1] == "receive":
        receive(int(sys.argv[2]), *sys.argv[3:])
    else:
        send(int(sys.argv[2]), sys.argv[3])
