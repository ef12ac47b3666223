//! Conversions between contracts and the domain.
