"""Where artifacts are kept: the same few functions over S3 and over a local folder."""
