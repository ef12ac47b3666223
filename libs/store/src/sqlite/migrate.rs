//! Bringing the schema up to date.

use diesel::{RunQueryDsl as _, SqliteConnection};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness as _, embed_migrations};

use super::{
    Db,
    setup::{Place, establish_here},
};
use crate::{StoreError, StoreOptions, versions};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("../../migrations/sqlite");

/// Applies what is missing to a file, on a connection of its own. Returns the versions applied; none for a database in memory,
/// which is made with its schema when it is connected.
pub(crate) async fn migrate(options: &StoreOptions) -> Result<Vec<String>, StoreError> {
    let Place::File(path) = Place::parse(&options.url)? else { return Ok(Vec::new()) };
    let run = tokio::task::spawn_blocking(move || {
        let mut conn = establish_here(&path).map_err(|error| StoreError::Unavailable(Box::new(error)))?;
        apply(&mut conn)
    });
    run.await.map_err(|error| StoreError::Unavailable(Box::new(error)))?
}

/// Makes the schema of a database in memory.
pub(super) fn make(conn: &mut SqliteConnection) -> Result<(), StoreError> {
    apply(conn).map(|_| ())
}

/// Applies what is missing. The transaction around it makes other processes wait.
fn apply(conn: &mut SqliteConnection) -> Result<Vec<String>, StoreError> {
    let applied = conn.immediate_transaction::<_, Failed, _>(|conn| {
        let applied = conn.run_pending_migrations(MIGRATIONS).map_err(Failed)?;
        Ok(applied.iter().map(ToString::to_string).collect())
    });
    applied.map_err(|Failed(error)| StoreError::Refused(error))
}

struct Failed(Box<dyn std::error::Error + Send + Sync>);

impl From<diesel::result::Error> for Failed {
    fn from(error: diesel::result::Error) -> Self {
        Self(Box::new(error))
    }
}

/// Checks that no migration is missing.
pub(super) fn check(conn: &mut SqliteConnection) -> Result<(), StoreError> {
    let applied = diesel::sql_query(versions::APPLIED).load::<versions::Applied>(conn).unwrap_or_default();
    versions::check::<Db>(MIGRATIONS, applied)
}
