//! Settings of queues.

use oxcart_store::{Pause, QueueRow};
use oxcart_types::QueueName;
use rstest::rstest;

use crate::support::{Database, Fixture, at};

fn pause(seconds: i64, by: &str) -> Pause {
    Pause { since: at(seconds), by: by.to_owned(), reason: format!("{by}'s reason ü") }
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_pause_is_kept_until_it_is_ended(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let mail: QueueName = "mail".parse().expect("a name");
    assert_eq!(store.queue(&mail).await.expect("read"), None);
    assert_eq!(store.resume_queue(&mail, at(1)).await.expect("resumed"), None, "a queue without settings needs none");
    let first = store.pause_queue(&mail, &pause(1, "anna")).await.expect("paused");
    assert_eq!((first.pause.clone(), first.created_at), (Some(pause(1, "anna")), at(1)));
    let second = store.pause_queue(&mail, &pause(5, "ben")).await.expect("paused again");
    assert_eq!(second.pause, Some(Pause { since: at(1), ..pause(5, "ben") }), "the time stays");
    assert_eq!((second.created_at, second.updated_at), (at(1), at(5)));
    let ended = store.resume_queue(&mail, at(6)).await.expect("resumed").expect("a row");
    assert_eq!(ended.pause, None);
    assert!(first.revision < second.revision && second.revision < ended.revision);
    assert_eq!(store.resume_queue(&mail, at(7)).await.expect("resumed"), Some(ended.clone()), "nothing to end changes nothing");
    let other = store.pause_queue(&"a.first".parse().expect("a name"), &pause(8, "cleo")).await.expect("paused");
    assert_eq!(store.queues().await.expect("read"), [other, ended]);
    let long = Pause { by: "b".repeat(129), ..pause(9, "") };
    assert!(store.pause_queue(&mail, &long).await.is_err(), "nothing is cut");
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn revisions_grow_also_when_the_clock_does_not(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let mail: QueueName = "mail".parse().expect("a name");
    let first = store.pause_queue(&mail, &pause(9, "anna")).await.expect("paused");
    let back = store.resume_queue(&mail, at(1)).await.expect("resumed").expect("a row");
    assert!(back.revision > first.revision);
    assert_eq!(store.lift_queue(&mail, first.revision, at(9)).await.expect("read"), Some(back.clone()), "it is above already");
    let above = back.revision + 1_000_000_000_000;
    let lifted = store.lift_queue(&mail, above, at(9)).await.expect("lifted").expect("a row");
    assert_eq!(lifted, QueueRow { revision: above + 1, updated_at: at(9), ..back });
    assert_eq!(store.queue(&mail).await.expect("read"), Some(lifted));
}
