//! Which inputs a target gets.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    time::{Duration, Instant},
};

use rand::{SeedableRng as _, rngs::StdRng};

/// Seeds of a target.
pub(crate) struct Seeds {
    next: u64,
    fixed: u64,
    until: Option<Instant>,
}

impl Seeds {
    /// So many from the first on, or as many as there is time for.
    pub(crate) fn of(count: u64) -> Self {
        let number = |name: &str| std::env::var(name).ok().map(|value| value.parse::<u64>().expect("a number"));
        let first = number("OXCART_FUZZ_SEED").unwrap_or(1);
        let until = number("OXCART_FUZZ_SECONDS").map(|seconds| Instant::now() + Duration::from_secs(seconds));
        Self { next: first, fixed: first + count, until }
    }
}

impl Iterator for Seeds {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let goes_on = self.next < self.fixed || self.until.is_some_and(|until| Instant::now() < until);
        goes_on.then(|| {
            self.next += 1;
            self.next - 1
        })
    }
}

/// Runs a target with each seed; says which one it was that failed.
pub(crate) fn each(target: &str, count: u64, mut run: impl FnMut(&mut StdRng)) {
    for seed in Seeds::of(count) {
        let outcome = catch_unwind(AssertUnwindSafe(|| run(&mut StdRng::seed_from_u64(seed))));
        if let Err(panic) = outcome {
            eprintln!("target {target} failed with OXCART_FUZZ_SEED={seed}");
            resume_unwind(panic);
        }
    }
}
