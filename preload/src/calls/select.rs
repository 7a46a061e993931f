//! select(2) and pselect(2).
