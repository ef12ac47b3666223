//! The scripts, each a file of its own with `lib.lua` put in after its first line.

use deadpool_redis::redis::Script;

const LIB: &str = include_str!("scripts/lib.lua");

/// All scripts, ready to be called by their hashes.
#[derive(Debug)]
pub(super) struct Scripts {
    pub(super) enqueue: Script,
    pub(super) lease: Script,
    pub(super) configure: Script,
    pub(super) extend: Script,
    pub(super) complete: Script,
    pub(super) release: Script,
    pub(super) remove: Script,
    pub(super) tick: Script,
    pub(super) missing: Script,
    pub(super) inspect: Script,
    pub(super) list: Script,
    pub(super) check: Script,
    pub(super) stats: Script,
    pub(super) journal: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            enqueue: script(include_str!("scripts/enqueue.lua")),
            lease: script(include_str!("scripts/lease.lua")),
            configure: script(include_str!("scripts/configure.lua")),
            extend: script(include_str!("scripts/extend.lua")),
            complete: script(include_str!("scripts/complete.lua")),
            release: script(include_str!("scripts/release.lua")),
            remove: script(include_str!("scripts/remove.lua")),
            tick: script(include_str!("scripts/tick.lua")),
            missing: script(include_str!("scripts/missing.lua")),
            inspect: script(include_str!("scripts/inspect.lua")),
            list: script(include_str!("scripts/list.lua")),
            check: script(include_str!("scripts/check.lua")),
            stats: script(include_str!("scripts/stats.lua")),
            journal: script(include_str!("scripts/journal.lua")),
        }
    }
}

/// Redis wants the line with the flags first.
fn script(body: &str) -> Script {
    let (flags, body) = body.split_once('\n').unwrap_or((body, ""));
    Script::new(&format!("{flags}\n{LIB}\n{body}"))
}
