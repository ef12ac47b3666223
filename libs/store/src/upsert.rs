//! Multi-row upserts, which diesel cannot say for both databases.

/// An upsert: which columns there are, and what happens to each when the row is there already.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Upsert {
    /// Table.
    pub(crate) table: &'static str,
    /// All columns, in the order of the values; the key first.
    pub(crate) columns: &'static [&'static str],
    /// Columns that take the new value.
    pub(crate) replace: &'static [&'static str],
    /// Columns that take the new value unless it is NULL.
    pub(crate) keep: &'static [&'static str],
    /// A row whose value here is below the stored one changes nothing.
    pub(crate) guard: Option<&'static str>,
}

impl Upsert {
    /// Name of the key.
    pub(crate) const fn key(&self) -> &'static str {
        self.columns[0]
    }

    /// The insert, without what happens on a conflict.
    pub(crate) fn insert_sql(&self, rows: usize) -> String {
        let row = format!("({})", vec!["?"; self.columns.len()].join(", "));
        format!("INSERT INTO {} ({}) VALUES {}", self.table, self.columns.join(", "), vec![row; rows].join(", "))
    }
}
