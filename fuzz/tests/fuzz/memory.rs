//! Counts what a thread allocates, so that a small input cannot ask for much.

#![expect(unsafe_code, reason = "an allocator cannot be written without")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

/// What one small input may have in use at once.
const MAX_BYTES: usize = 10 << 20;

thread_local! {
    static IN_USE: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

fn count(bytes: isize) {
    // A thread that ends has no counters any more, and nobody asks for them.
    let _ = IN_USE.try_with(|in_use| {
        in_use.set(in_use.get() + bytes);
        let _ = MOST.try_with(|most| most.set(most.get().max(in_use.get())));
    });
}

// SAFETY: every call is passed on to the allocator of the system as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Does something on this thread that must not take much memory.
pub(crate) fn bounded<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let before = IN_USE.get();
    MOST.set(before);
    let done = work();
    let most = (MOST.get() - before).unsigned_abs();
    assert!(most <= MAX_BYTES, "{what} had {most} bytes in use");
    done
}

#[test]
fn much_is_noticed() {
    bounded("a little", || vec![0_u8; 1000].len());
    let much = std::panic::catch_unwind(|| bounded("much", || vec![0_u8; MAX_BYTES + 1].len()));
    much.expect_err("more than allowed");
}
