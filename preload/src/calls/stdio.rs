//! Streams of libc's stdio on connections.
