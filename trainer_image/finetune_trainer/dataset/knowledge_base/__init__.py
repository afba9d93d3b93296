"""Where cleaned documents are kept and searched. One file a server."""
