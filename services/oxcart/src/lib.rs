//! Oxcart: the binary, and the embedded system as a library
