//! Programs started by other means than exec: posix_spawn, system, popen.
