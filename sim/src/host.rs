//! Stands in for the operating system where the system asks it behind everybody's back: random bytes and the boot clock.
//!
//! `std` seeds its hash maps with `getrandom`, and so does `rand`; with these bytes following from the seed, the order in which
//! a map is walked and every throw of `rand` follow from it, too. Both are kept per thread: a world has a thread of its own.

#![expect(unsafe_code, reason = "takes the place of two functions of libc, in this binary only")]

use std::cell::RefCell;

use crate::{rng::Rng, time};

thread_local! {
    static DICE: RefCell<Option<Rng>> = const { RefCell::new(None) };
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Panics that this thread has noted, which it then forgets.
pub fn take_panics() -> Vec<String> {
    PANICS.with(|panics| std::mem::take(&mut *panics.borrow_mut()))
}

/// Notes a panic of this thread.
pub fn note_panic(what: String) {
    let _ = PANICS.try_with(|panics| panics.borrow_mut().push(what));
}

/// From now on all random bytes of this thread follow from the seed. To be called before anything else on the thread.
pub fn seed_thread(seed: u64) {
    DICE.with(|dice| *dice.borrow_mut() = Some(Rng::new(seed)));
}

/// In place of libc's.
///
/// # Safety
/// As libc's: `buffer` has `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut libc::c_void, length: libc::size_t, flags: libc::c_uint) -> libc::ssize_t {
    let thrown = DICE.try_with(|dice| {
        let mut dice = dice.borrow_mut();
        let dice = dice.as_mut()?;
        // SAFETY: the caller's promise.
        let bytes = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&dice.next().to_le_bytes()[..chunk.len()]);
        }
        Some(libc::ssize_t::try_from(length).unwrap_or(libc::ssize_t::MAX))
    });
    match thrown {
        Ok(Some(length)) => length,
        // SAFETY: the call that libc would make.
        Ok(None) | Err(_) => unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) as libc::ssize_t },
    }
}

/// In place of libc's: the boot clock is the simulated one.
///
/// # Safety
/// As libc's: `time` points to a `timespec`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> libc::c_int {
    if clock == libc::CLOCK_BOOTTIME
        && let Some(now) = time::boot_clock()
    {
        let seconds = libc::time_t::try_from(now.as_secs()).unwrap_or(libc::time_t::MAX);
        // SAFETY: the caller's promise.
        unsafe { *time = libc::timespec { tv_sec: seconds, tv_nsec: libc::c_long::from(now.subsec_nanos()) } };
        return 0;
    }
    // SAFETY: the call that libc would make.
    unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) as libc::c_int }
}
