//! Does the schema have what this program needs?

use diesel::{QueryableByName, backend::Backend, migration::MigrationSource, sql_types::Text};
use diesel_migrations::EmbeddedMigrations;

use crate::StoreError;

/// Reads the versions that were applied; fails when there is no schema at all.
pub(crate) const APPLIED: &str = "SELECT version FROM __diesel_schema_migrations ORDER BY version DESC";

/// A version that was applied.
#[derive(Debug, QueryableByName)]
pub(crate) struct Applied {
    #[diesel(sql_type = Text)]
    version: String,
}

/// Every migration of this program must be there. Newer ones are none of its business: each is made so that the release
/// before goes on working (see `migrations/README.md`).
pub(crate) fn check<DB: Backend>(migrations: EmbeddedMigrations, applied: Vec<Applied>) -> Result<(), StoreError> {
    let known = MigrationSource::<DB>::migrations(&migrations).map_err(StoreError::Refused)?;
    let mut needed: Vec<String> = known.iter().map(|migration| migration.name().version().to_string()).collect();
    needed.sort();
    let found = applied.first().map(|newest| newest.version.clone()).unwrap_or_default();
    match needed.iter().rev().find(|version| !applied.iter().any(|row| row.version == **version)) {
        None => Ok(()),
        Some(missing) => Err(StoreError::Schema { found, needed: missing.clone() }),
    }
}
