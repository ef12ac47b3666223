//! The tables, as both databases have them; see `migrations/`.

use diesel::{allow_tables_to_appear_in_same_query, table};

table! {
    tasks (id) {
        id -> Binary,
        name -> Text,
        queue -> Text,
        priority -> SmallInt,
        content_type -> Text,
        payload -> Binary,
        tags -> Nullable<Text>,
        metadata -> Nullable<Text>,
        run_at -> Nullable<Timestamp>,
        expires_at -> Nullable<Timestamp>,
        timeout_nanos -> Nullable<BigInt>,
        deadline_nanos -> Nullable<BigInt>,
        max_attempts -> Integer,
        retry -> Nullable<Text>,
        idempotency_key -> Nullable<Text>,
        idempotency_policy -> Nullable<SmallInt>,
        idempotency_ttl_nanos -> Nullable<BigInt>,
        fairness_key -> Nullable<Text>,
        digest -> Binary,
        handoff -> Nullable<Binary>,
        created_at -> Timestamp,
        start_timeout_nanos -> Nullable<BigInt>,
        heartbeat_timeout_nanos -> Nullable<BigInt>,
        parent -> Nullable<Binary>,
    }
}

table! {
    task_children (parent, task) {
        parent -> Binary,
        task -> Binary,
    }
}

table! {
    operations (id) {
        id -> Binary,
        request -> Nullable<Binary>,
        rule -> Nullable<Binary>,
        action -> SmallInt,
        selector -> SmallInt,
        picks -> Binary,
        reason -> Text,
        actor -> Text,
        grace_nanos -> BigInt,
        state -> SmallInt,
        step -> BigInt,
        position -> Nullable<Binary>,
        next_at -> Timestamp,
        matched -> BigInt,
        cancelled -> BigInt,
        requested -> BigInt,
        finished -> BigInt,
        failed -> BigInt,
        failures -> Nullable<Text>,
        created_at -> Timestamp,
        ended_at -> Nullable<Timestamp>,
    }
}

table! {
    operation_tasks (operation, task) {
        operation -> Binary,
        task -> Binary,
        state -> SmallInt,
        counted -> SmallInt,
        after -> Nullable<Binary>,
    }
}

table! {
    cancel_rules (id) {
        id -> Binary,
        request -> Nullable<Binary>,
        sweep -> Binary,
        selector -> SmallInt,
        picks -> Binary,
        reason -> Text,
        actor -> Text,
        grace_nanos -> BigInt,
        cancelled -> BigInt,
        created_at -> Timestamp,
        expires_at -> Timestamp,
        ended_at -> Nullable<Timestamp>,
    }
}

table! {
    cancel_guard (id) {
        id -> SmallInt,
        rules -> BigInt,
    }
}

table! {
    handoffs (id) {
        id -> Binary,
        made_at -> Timestamp,
        tasks -> Binary,
    }
}

table! {
    agenda (task) {
        task -> Binary,
        at -> Timestamp,
        run -> Integer,
        why -> SmallInt,
        lane -> SmallInt,
        queue -> Text,
        band -> SmallInt,
    }
}

table! {
    starts (task, run) {
        task -> Binary,
        run -> Integer,
        kind -> SmallInt,
        attempt -> Integer,
        token -> Binary,
        worker -> Nullable<Binary>,
        started_at -> Timestamp,
    }
}

table! {
    ends (task, run) {
        task -> Binary,
        run -> Integer,
        kind -> SmallInt,
        ended_by -> Binary,
        attempts_used -> Integer,
        next_run_at -> Nullable<Timestamp>,
        result_type -> Nullable<Text>,
        result -> Nullable<Binary>,
        failure_kind -> Nullable<Text>,
        failure_message -> Nullable<Text>,
        failure_detail -> Nullable<Text>,
        failure_fatal -> Nullable<SmallInt>,
        failure_retry_after_nanos -> Nullable<BigInt>,
        ended_at -> Timestamp,
    }
}

table! {
    cancels (task, budget) {
        task -> Binary,
        budget -> Integer,
        reason -> Text,
        requested_at -> Timestamp,
        grace_nanos -> BigInt,
    }
}

table! {
    replays (task, run) {
        task -> Binary,
        run -> Integer,
        token -> Binary,
        max_attempts -> Nullable<Integer>,
        reason -> Text,
        replayed_at -> Timestamp,
    }
}

table! {
    live (task) {
        task -> Binary,
        run -> Integer,
        seen_at -> Timestamp,
        progress_current -> Nullable<BigInt>,
        progress_total -> Nullable<BigInt>,
        progress_message -> Nullable<Text>,
        progress_at -> Nullable<Timestamp>,
        checkpoint_type -> Nullable<Text>,
        checkpoint -> Nullable<Binary>,
    }
}

table! {
    task_tags (task, tag) {
        task -> Binary,
        tag -> Text,
    }
}

table! {
    idempotency_keys (kind, name) {
        kind -> SmallInt,
        name -> Binary,
        tasks -> Binary,
        expires_at -> Timestamp,
    }
}

table! {
    workers (id) {
        id -> Binary,
        seen_at -> Timestamp,
        first_seen_at -> Timestamp,
        stopped -> SmallInt,
        info -> Binary,
    }
}

table! {
    cursors (name) {
        name -> Text,
        value -> Text,
    }
}

table! {
    queues (name) {
        name -> Text,
        revision -> BigInt,
        paused_at -> Nullable<Timestamp>,
        paused_by -> Nullable<Text>,
        pause_reason -> Nullable<Text>,
        created_at -> Timestamp,
        updated_at -> Timestamp,
    }
}

allow_tables_to_appear_in_same_query!(tasks, starts, ends, live, cancels, replays, agenda, handoffs);
