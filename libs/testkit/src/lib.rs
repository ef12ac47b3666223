//! Private servers and waiting for tests
