//! Values that several commands take.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
    time::Duration,
};

use chrono::{DateTime, Utc};
use oxcart_proto::pb::common::v1::{Payload, payload::Content};
use oxcart_types::{Limits, Timestamp, payload::JSON};

use super::CliError;

/// Reads a duration like `10s`, `5m` or `1h 30m`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write 500ms, 10s, 5m or 1h"))
}

/// Reads a number of things, of which there must be one.
pub(super) fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be 1 or more".to_owned()),
        Ok(count) => Ok(count),
        Err(error) => Err(format!("{error}; write 1 or more")),
    }
}

/// Reads an instant of RFC 3339.
pub(super) fn instant(text: &str) -> Result<Timestamp, String> {
    DateTime::parse_from_rfc3339(text)
        .map(|time| time.with_timezone(&Utc))
        .map_err(|error| format!("{error}; write 2026-12-24T18:00:00Z"))
}

/// Where the input of a task comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// The argument itself.
    Text(String),
    /// A file.
    File(PathBuf),
    /// stdin.
    Stdin,
}

/// Reads `-`, `@file`, or the text itself.
#[expect(clippy::unnecessary_wraps, reason = "the signature that clap calls")]
pub(super) fn source(text: &str) -> Result<Source, std::convert::Infallible> {
    Ok(match text.strip_prefix('@') {
        Some(path) => Source::File(Path::new(path).to_owned()),
        None if text == "-" => Source::Stdin,
        None => Source::Text(text.to_owned()),
    })
}

impl Source {
    /// The payload: JSON, or bytes of a media type.
    pub(super) fn payload(&self, content_type: Option<&str>) -> Result<Payload, CliError> {
        let bytes = self.read()?;
        let content_type = content_type.unwrap_or(JSON);
        let content = if content_type == JSON {
            Content::Json(
                String::from_utf8(bytes)
                    .map_err(|_| CliError::Usage("the payload is not UTF-8; name its --content-type".to_owned()))?,
            )
        } else {
            Content::Data(bytes)
        };
        Ok(Payload { content: Some(content), content_type: content_type.to_owned(), content_encoding: String::new() })
    }

    /// The content. What is over the hard limit of a payload is not read to its end.
    fn read(&self) -> Result<Vec<u8>, CliError> {
        let limit = Limits::PAYLOAD_HARD_BYTES as u64 + 1;
        let mut bytes = Vec::new();
        match self {
            Self::Text(text) => return Ok(text.clone().into_bytes()),
            Self::Stdin => std::io::stdin().lock().take(limit).read_to_end(&mut bytes)?,
            Self::File(path) => {
                let file = std::fs::File::open(path).map_err(|error| CliError::Usage(format!("{}: {error}", path.display())))?;
                file.take(limit).read_to_end(&mut bytes)?
            }
        };
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_come_from_text_and_files() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("input.json");
        std::fs::write(&path, "[1]").expect("written");
        let read = |text: &str, content_type| source(text).map(|source| source.payload(content_type).map(|p| p.content));
        let Ok(text) = read("{}", None);
        assert_eq!(text.expect("read"), Some(Content::Json("{}".to_owned())));
        let Ok(file) = read(&format!("@{}", path.display()), None);
        assert_eq!(file.expect("read"), Some(Content::Json("[1]".to_owned())));
        let Ok(bytes) = read("abc", Some("text/plain"));
        assert_eq!(bytes.expect("read"), Some(Content::Data(b"abc".to_vec())));
        let Ok(missing) = read("@/no/such/file", None);
        assert_eq!(missing.expect_err("missing").exit() as u8, 2);
        assert_eq!(source("-"), Ok(Source::Stdin));
    }

    #[test]
    fn counts_are_one_or_more() {
        assert_eq!(count("3"), Ok(3));
        for bad in ["0", "-1", "many"] {
            assert!(count(bad).expect_err(bad).contains("1 or more"), "{bad}");
        }
    }

    #[test]
    fn times_say_how_they_are_written() {
        assert_eq!(duration("1m 30s"), Ok(Duration::from_secs(90)));
        assert!(duration("soon").expect_err("bad").contains("10s"));
        assert!(instant("2026-12-24T18:00:00Z").is_ok());
        assert!(instant("tomorrow").expect_err("bad").contains("2026-12-24T18:00:00Z"));
    }
}
