//! Printing results: tables for people, JSON of the contracts for programs, names for pipes.

use std::io::{self, Write};

use clap::ValueEnum;
use comfy_table::{Table, presets};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};

use super::CliError;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// The answer as JSON, as the contract defines it
    Json,
    /// One JSON object a line
    Jsonl,
    /// Ids or names only, one a line
    Name,
}

/// Where and how results go.
pub(crate) struct Output {
    format: Format,
    out: Box<dyn Write + Send>,
}

impl Output {
    /// To stdout.
    pub(crate) fn stdout(format: Format) -> Self {
        Self { format, out: Box::new(io::stdout()) }
    }

    /// The format asked for.
    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// Prints a line. Everything is flushed at once, since what follows may wait for long.
    pub(crate) fn line(&mut self, line: impl AsRef<str>) -> Result<(), CliError> {
        writeln!(self.out, "{}", line.as_ref())?;
        self.out.flush()?;
        Ok(())
    }

    /// Prints a message of the contract as one JSON text: indented for `json`, on one line for `jsonl`.
    pub(crate) fn message<M: Message>(&mut self, name: &str, message: &M) -> Result<(), CliError> {
        let value = to_json(name, message)?;
        self.value(&value)
    }

    /// Prints a JSON value: indented for `json`, on one line otherwise.
    pub(crate) fn value(&mut self, value: &serde_json::Value) -> Result<(), CliError> {
        let text = match self.format {
            Format::Json => serde_json::to_string_pretty(value),
            Format::Table | Format::Jsonl | Format::Name => serde_json::to_string(value),
        };
        self.line(text.map_err(anyhow::Error::from)?)
    }

    /// Prints rows under upper-case headers, without lines.
    pub(crate) fn table(&mut self, headers: &[&str], rows: Vec<Vec<String>>) -> Result<(), CliError> {
        self.line(table(headers, rows))
    }
}

/// A table as text.
pub(crate) fn table(headers: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(headers).add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// A message as the JSON that its contract defines; `name` is the full name of its type.
pub(crate) fn to_json<M: Message>(name: &str, message: &M) -> Result<serde_json::Value, CliError> {
    let pool = DescriptorPool::decode(oxcart_proto::DESCRIPTOR_SET).map_err(anyhow::Error::from)?;
    let descriptor = pool.get_message_by_name(name).ok_or_else(|| anyhow::anyhow!("the contracts have no message {name}"))?;
    let dynamic = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice()).map_err(anyhow::Error::from)?;
    let options = SerializeOptions::new();
    Ok(dynamic.serialize_with_options(serde_json::value::Serializer, &options).map_err(anyhow::Error::from)?)
}

#[cfg(test)]
mod tests {
    use oxcart_proto::pb::common::v1::{Payload, Task, TaskSpec, TaskState, payload::Content};

    use super::*;

    #[test]
    fn messages_print_as_their_contract_says() {
        let payload = Payload { content: Some(Content::Json("{\"n\":1}".to_owned())), ..Default::default() };
        let spec =
            TaskSpec { task_id: "id".to_owned(), task_name: "echo".to_owned(), payload: Some(payload), ..Default::default() };
        let create_time = Some(prost_types::Timestamp { seconds: 0, nanos: 5_000_000 });
        let task = Task { spec: Some(spec), state: TaskState::Succeeded.into(), create_time, ..Default::default() };
        let json = to_json("oxcart.common.v1.Task", &task).expect("JSON");
        let expected = serde_json::json!({
            "spec": { "taskId": "id", "taskName": "echo", "payload": { "json": "{\"n\":1}" } },
            "state": "TASK_STATE_SUCCEEDED",
            "createTime": "1970-01-01T00:00:00.005Z",
        });
        assert_eq!(json, expected);
        assert!(to_json("oxcart.common.v1.Nothing", &task).is_err());
    }

    #[test]
    fn tables_have_upper_case_headers_and_no_lines() {
        let text = table(&["ID", "STATE"], vec![vec!["a".into(), "QUEUED".into()], vec!["bcd".into(), "FAILED".into()]]);
        insta::assert_snapshot!(text, @r"
        ID   STATE
        a    QUEUED
        bcd  FAILED
        ");
    }
}
