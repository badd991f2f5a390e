"""The bytes of a message: lossless masks and values, whose length is the message's cost."""
