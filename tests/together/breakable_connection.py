"""A TCP connection to a server that a test can cut, as a server that dies does."""

from __future__ import annotations

import contextlib
import socket
import threading


class BreakableConnection:
    """Passes bytes on, from a port of this machine to a server. Cuts itself once so many bytes were sent."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._bytes_left: int | None = None
        self.is_cut = False
        threading.Thread(target=self._accept, daemon=True).start()

    def cut_after(self, sent_bytes: int) -> None:
        """Cut when so many more bytes went to the server."""
        self._bytes_left = sent_bytes

    def cut(self) -> None:
        """Close what is open; whoever comes now is sent away."""
        self.is_cut = True
        for end in self._open:
            _close(end)
        self._open.clear()

    def mend(self) -> None:
        """Let everybody through again."""
        self._bytes_left, self.is_cut = None, False

    def close(self) -> None:
        self.cut()
        _close(self._listener)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self.is_cut:
                    _close(client)
                    continue
                server = socket.create_connection(self._target)
                self._open += [client, server]
                threading.Thread(target=self._pump, args=(client, server, True), daemon=True).start()
                threading.Thread(target=self._pump, args=(server, client, False), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, to_server: bool) -> None:
        with contextlib.suppress(OSError):
            while content := source.recv(65536):
                if to_server and self._bytes_left is not None:
                    self._bytes_left -= len(content)
                    if self._bytes_left < 0:
                        self.cut()
                        return
                target.sendall(content)
        _close(source)
        _close(target)


def _close(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    with contextlib.suppress(OSError):
        end.close()
