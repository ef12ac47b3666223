//! What a network does to the bytes that pass: plain data.

use std::{num::NonZeroU32, time::Duration};

/// What a proxy does to its connections, those that are open and those to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Conditions {
    /// Nobody is there: open connections are reset, new ones are closed at once.
    pub refuse: bool,
    /// What happens to bytes from the client to the server.
    pub up: Flow,
    /// What happens to bytes from the server to the client.
    pub down: Flow,
}

/// What happens to the bytes of one direction. They never change their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flow {
    /// They stay where they are, as in a network that is cut: the connection stays open, and they go on when it heals.
    pub hold: bool,
    /// They arrive this much later.
    pub delay: Duration,
    /// And up to this much more, differently each time.
    pub jitter: Duration,
    /// At most so many pass in a second.
    pub bytes_per_second: Option<NonZeroU32>,
    /// One chunk in so many is lost, and its connection is reset: what the sender did is done, and nobody hears of it.
    pub sever_one_in: Option<NonZeroU32>,
}

impl Conditions {
    /// Everything passes.
    pub const PASS: Self = Self { refuse: false, up: Flow::PASS, down: Flow::PASS };
    /// Nobody is there.
    pub const REFUSE: Self = Self { refuse: true, ..Self::PASS };
    /// Connections stay open, and nothing passes either way.
    pub const BLACK_HOLE: Self = Self { up: Flow::HOLD, down: Flow::HOLD, ..Self::PASS };
    /// What the client says does not arrive; what the server says does.
    pub const DEAF: Self = Self { up: Flow::HOLD, ..Self::PASS };
    /// What the server says does not arrive; what the client says does.
    pub const MUTE: Self = Self { down: Flow::HOLD, ..Self::PASS };

    /// Both directions take `delay`, and up to `jitter` more.
    #[must_use]
    pub const fn slow(delay: Duration, jitter: Duration) -> Self {
        let flow = Flow { delay, jitter, ..Flow::PASS };
        Self { refuse: false, up: flow, down: flow }
    }

    /// Both directions pass so many bytes in a second; 1 for 0.
    #[must_use]
    pub const fn trickle(bytes_per_second: u32) -> Self {
        let flow = Flow { bytes_per_second: Some(at_least_one(bytes_per_second)), ..Flow::PASS };
        Self { refuse: false, up: flow, down: flow }
    }

    /// One reply in so many is lost together with its connection, after the server did what it was asked; each for 0 and 1.
    #[must_use]
    pub const fn lose_replies(one_in: u32) -> Self {
        Self { down: Flow { sever_one_in: Some(at_least_one(one_in)), ..Flow::PASS }, ..Self::PASS }
    }
}

impl Flow {
    /// Everything passes.
    pub const PASS: Self =
        Self { hold: false, delay: Duration::ZERO, jitter: Duration::ZERO, bytes_per_second: None, sever_one_in: None };
    /// Nothing passes.
    pub const HOLD: Self = Self { hold: true, ..Self::PASS };
}

const fn at_least_one(number: u32) -> NonZeroU32 {
    match NonZeroU32::new(number) {
        Some(number) => number,
        None => NonZeroU32::MIN,
    }
}
