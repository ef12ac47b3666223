//! What a caller would write into a field, by its name.

use std::collections::HashMap;

use oxcart_fuzz::{corpus, message::Vocabulary};

/// Texts by name of field: the corpora of the parsers, and ids that exist.
pub(crate) struct Words(HashMap<&'static str, Vec<String>>);

impl Words {
    /// With ids of tasks that there are.
    pub(crate) fn new(tasks: &[String]) -> Self {
        let mut ids = corpus::texts("task_id");
        ids.extend(tasks.iter().cloned());
        let names = corpus::texts("name");
        Self(HashMap::from([
            ("filter", corpus::texts("filter")),
            ("page_token", corpus::texts("page_token")),
            ("after_cursor", corpus::texts("journal_cursor")),
            ("json", corpus::texts("json")),
            ("task_id", ids.clone()),
            ("task_ids", ids.clone()),
            ("worker_id", ids.clone()),
            ("request_id", ids),
            ("task_name", names.clone()),
            ("task_names", names.clone()),
            ("queue", names.clone()),
            ("queues", names.clone()),
            ("tags", names.clone()),
            ("fairness_key", names),
            (
                "paths",
                ["queue", "priority", "tags", "run_at", "start", "retry_policy", "*", "task_id", ""].map(str::to_owned).to_vec(),
            ),
        ]))
    }
}

impl Vocabulary for Words {
    fn texts(&self, field: &str) -> &[String] {
        self.0.get(field).map_or(&[], Vec::as_slice)
    }
}
