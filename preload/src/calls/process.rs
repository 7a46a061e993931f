//! fork, exec and the end of a process.
