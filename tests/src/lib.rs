//! End-to-end tests of Oxcart. This library is what they share; the tests are in `tests/`.
