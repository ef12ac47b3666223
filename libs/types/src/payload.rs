//! Opaque user data.

use crate::{
    limits::Limits,
    violation::{Invalid, reason},
};

/// User data with its media type. JSON is kept byte for byte, so that no number is rounded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    content_type: String,
    body: Body,
}

/// The content of a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Text that has been checked to be JSON.
    Json(String),
    /// Any bytes.
    Bytes(Vec<u8>),
}

/// The media type of JSON.
pub const JSON: &str = "application/json";
/// The media type of bytes that name none.
pub const OCTET_STREAM: &str = "application/octet-stream";

impl Payload {
    /// JSON text.
    ///
    /// # Errors
    /// Over the limit, or not JSON.
    pub fn json(text: String, limits: &Limits) -> Result<Self, Invalid> {
        check_size(text.len(), limits)?;
        serde_json::from_str::<serde::de::IgnoredAny>(&text)
            .map_err(|error| Invalid::because(reason::PAYLOAD_INVALID_JSON, format!("is not JSON: {error}")))?;
        Ok(Self { content_type: JSON.to_owned(), body: Body::Json(text) })
    }

    /// Bytes of a media type; of [`OCTET_STREAM`] when it is empty. Bytes said to be JSON are checked and kept as text.
    ///
    /// # Errors
    /// Over the limit, a bad media type, or said to be JSON and not JSON.
    pub fn bytes(bytes: Vec<u8>, content_type: &str, limits: &Limits) -> Result<Self, Invalid> {
        check_size(bytes.len(), limits)?;
        let content_type = if content_type.is_empty() { OCTET_STREAM } else { content_type };
        if content_type == JSON {
            let text = String::from_utf8(bytes)
                .map_err(|_| Invalid::because(reason::PAYLOAD_INVALID_JSON, "is said to be JSON and is not UTF-8"))?;
            return Self::json(text, limits);
        }
        if content_type.len() > Limits::CONTENT_TYPE_BYTES || !content_type.is_ascii() || content_type.contains(char::is_control) {
            return Err(Invalid::value(format!(
                "content_type must be a media type of at most {} printable ASCII characters",
                Limits::CONTENT_TYPE_BYTES
            )));
        }
        Ok(Self { content_type: content_type.to_owned(), body: Body::Bytes(bytes) })
    }

    /// From what a store kept, which was checked when it went in: JSON is not parsed again. Content that is no longer
    /// UTF-8 is handed on as bytes rather than refused.
    #[must_use]
    pub fn from_stored(content_type: String, bytes: Vec<u8>) -> Self {
        let body = if content_type == JSON {
            String::from_utf8(bytes).map_or_else(|error| Body::Bytes(error.into_bytes()), Body::Json)
        } else {
            Body::Bytes(bytes)
        };
        Self { content_type, body }
    }

    /// The JSON value `null`: the payload of a task that brings none.
    #[must_use]
    pub fn null() -> Self {
        Self { content_type: JSON.to_owned(), body: Body::Json("null".to_owned()) }
    }

    /// Media type.
    #[must_use]
    pub fn content_type(&self) -> &str {
        &self.content_type
    }

    /// Content.
    #[must_use]
    pub const fn body(&self) -> &Body {
        &self.body
    }

    /// Content as bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.body {
            Body::Json(text) => text.as_bytes(),
            Body::Bytes(bytes) => bytes,
        }
    }

    /// Takes media type and content apart.
    #[must_use]
    pub fn into_parts(self) -> (String, Body) {
        (self.content_type, self.body)
    }
}

fn check_size(size: usize, limits: &Limits) -> Result<(), Invalid> {
    if size <= limits.payload_bytes {
        return Ok(());
    }
    Err(Invalid::because(reason::PAYLOAD_TOO_LARGE, format!("has {size} bytes; at most {} are allowed", limits.payload_bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_kept_as_written() {
        let text = r#"{"n":12345678901234567890.10}"#;
        let payload = Payload::json(text.to_owned(), &Limits::default()).expect("JSON");
        assert_eq!(payload.as_bytes(), text.as_bytes());
    }

    #[test]
    fn refusals_name_the_limit() {
        let limits = Limits { payload_bytes: 4 };
        let error = Payload::json("12345".to_owned(), &limits).expect_err("too long");
        assert_eq!((error.reason, error.description.as_str()), (reason::PAYLOAD_TOO_LARGE, "has 5 bytes; at most 4 are allowed"));
        assert_eq!(Payload::bytes(b"{".to_vec(), JSON, &limits).expect_err("not JSON").reason, reason::PAYLOAD_INVALID_JSON);
        assert!(Payload::bytes(vec![], "a\nb", &limits).is_err());
    }
}
