//! What waiting for several descriptors needs besides the calls.
