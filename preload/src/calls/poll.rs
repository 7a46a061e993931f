//! poll(2) and its kin.
