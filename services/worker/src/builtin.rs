//! The handlers that the stock worker has.

mod checksum;
mod command;
mod echo;
mod files;
mod flaky;
mod http;
mod sleep;
mod wordcount;

use std::sync::Arc;

use oxcart_sdk::{HandlerNameError, Handlers};
use serde::{Deserialize, Serialize};

pub use self::{command::CommandConfig, files::FilesConfig, http::HttpConfig};

/// Which built-in handlers there are and what they may reach.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BuiltinConfig {
    /// `echo`, `sleep`, `flaky`, and those that are allowed below.
    pub enabled: bool,
    /// `http.request`.
    pub http: HttpConfig,
    /// `command.run`; not there unless a program is allowed.
    pub command: CommandConfig,
    /// `file.checksum` and `text.wordcount`; not there unless a root is allowed.
    pub files: FilesConfig,
}

impl Default for BuiltinConfig {
    fn default() -> Self {
        Self { enabled: true, http: HttpConfig::default(), command: CommandConfig::default(), files: FilesConfig::default() }
    }
}

/// The handlers that the settings allow.
///
/// # Errors
/// Never for the names of this module; the type is that of the registry.
pub fn handlers(config: &BuiltinConfig) -> Result<Handlers, HandlerNameError> {
    if !config.enabled {
        return Ok(Handlers::new());
    }
    let mut handlers =
        Handlers::new().handle_raw("echo", echo::run)?.handle_fn("sleep", sleep::run)?.handle_fn("flaky", flaky::run)?;
    if config.http.enabled {
        let http = Arc::new(http::Http::new(config.http.clone()));
        handlers = handlers.handle_fn("http.request", move |ctx, input| {
            let http = Arc::clone(&http);
            async move { http.run(ctx, input).await }
        })?;
    }
    if !config.command.allow.is_empty() {
        let settings = Arc::new(config.command.clone());
        handlers = handlers.handle_fn("command.run", move |ctx, input| command::run(Arc::clone(&settings), ctx, input))?;
    }
    if !config.files.roots.is_empty() {
        let files = Arc::new(config.files.clone());
        let same = Arc::clone(&files);
        handlers = handlers
            .handle_blocking("file.checksum", move |ctx, input| checksum::run(&files, &ctx, &input))?
            .handle_blocking("text.wordcount", move |ctx, input| wordcount::run(&same, &ctx, &input))?;
    }
    Ok(handlers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_reaches_out_of_the_process_must_be_allowed() {
        let names = |config: &BuiltinConfig| handlers(config).expect("names").names().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(names(&BuiltinConfig::default()), ["echo", "flaky", "http.request", "sleep"]);
        let files = FilesConfig { roots: vec!["/".into()] };
        let command = CommandConfig { allow: vec!["/bin/true".into()], ..CommandConfig::default() };
        let all = BuiltinConfig { files, command, ..BuiltinConfig::default() };
        assert_eq!(names(&all).len(), 7);
        assert_eq!(names(&BuiltinConfig { enabled: false, ..all }).len(), 0);
    }
}
