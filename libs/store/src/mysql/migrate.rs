//! Bringing the schema up to date.

use diesel::{ConnectionError, sql_types::Integer};
use diesel_async::{AsyncMigrationHarness, RunQueryDsl as _};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness as _, embed_migrations};

use super::{Conn, Db, setup};
use crate::{
    StoreError, StoreOptions,
    error::Unreachable,
    fault::{Class, Fault, Step, report},
    versions,
};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("../../migrations/mysql");
/// Several processes may start at once; the others wait for the first.
const LOCK_SECONDS: i32 = 120;

#[derive(diesel::QueryableByName)]
struct Locked {
    #[diesel(sql_type = diesel::sql_types::Nullable<Integer>)]
    locked: Option<i32>,
}

/// Applies what is missing, on a connection of its own; its end frees the lock. Returns the versions applied.
pub(crate) async fn migrate(options: &StoreOptions) -> Result<Vec<String>, StoreError> {
    let place = setup::place(&options.url)?;
    let mut conn = setup::establish(options.url.clone()).await.map_err(|error| match error {
        ConnectionError::InvalidConnectionUrl(error) => StoreError::Configuration(error),
        error => StoreError::Unavailable(Box::new(Unreachable { place, reason: error.to_string() })),
    })?;
    let refused = |error| report(super::errors::classify(&error), error);
    let lock = "SELECT CAST(GET_LOCK(CONCAT('oxcart-migrate-', MD5(DATABASE())), ?) AS SIGNED) AS locked";
    let locked = diesel::sql_query(lock).bind::<Integer, _>(LOCK_SECONDS);
    let locked: Locked = locked.get_result(&mut conn).await.map_err(refused)?;
    if locked.locked != Some(1) {
        return Err(StoreError::Unavailable("another process has been migrating the schema for too long".into()));
    }
    let run = tokio::task::spawn_blocking(move || {
        let mut harness = AsyncMigrationHarness::new(conn);
        let applied = harness.run_pending_migrations(MIGRATIONS)?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(applied.iter().map(ToString::to_string).collect())
    });
    run.await.map_err(|error| StoreError::Unavailable(Box::new(error)))?.map_err(StoreError::Refused)
}

/// Checks that no migration is missing.
pub(super) async fn check(conn: &mut Conn) -> Step<()> {
    let applied = diesel::sql_query(versions::APPLIED).load::<versions::Applied>(conn).await;
    let applied = match applied {
        Ok(applied) => applied,
        Err(error) if super::errors::classify(&error) == Class::Defect => Vec::new(),
        Err(error) => return Err(Fault::Sql(error)),
    };
    versions::check::<Db>(MIGRATIONS, applied).map_err(Fault::Store)
}
