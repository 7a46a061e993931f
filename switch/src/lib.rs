//! Stream sockets over a SAN provider table.
