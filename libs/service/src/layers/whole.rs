//! Requests of which a message goes on only when all of it is there.
//!
//! The decoder makes room for a message as soon as its length is announced, which costs a caller five bytes and the server up to
//! the largest message, for as long as the caller likes. Here a message that is under way takes what has arrived of it.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame};
use tonic::{Status, body::Body};

use crate::server::MAX_MESSAGE_BYTES;

/// A flag and the length of the message, big-endian.
const PREFIX_BYTES: usize = 5;

/// See the module.
#[derive(Debug)]
pub(super) struct WholeMessages {
    inner: Body,
    cutter: Cutter,
    trailers: Option<Frame<Bytes>>,
}

impl WholeMessages {
    pub(super) fn new(inner: Body) -> Self {
        Self { inner, cutter: Cutter::default(), trailers: None }
    }
}

impl HttpBody for WholeMessages {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        loop {
            if let Some(data) = this.cutter.whole.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            if let Some(trailers) = this.trailers.take() {
                return Poll::Ready(Some(Ok(trailers)));
            }
            match ready!(Pin::new(&mut this.inner).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.cutter.take(data),
                    Err(trailers) => {
                        this.cutter.give_up();
                        this.trailers = Some(trailers);
                    }
                },
                Some(Err(status)) => return Poll::Ready(Some(Err(status))),
                // What was cut short is for the decoder to refuse.
                None if this.cutter.give_up() => {}
                None => return Poll::Ready(None),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.cutter.is_empty() && self.trailers.is_none() && self.inner.is_end_stream()
    }
}

/// Finds the ends of messages.
#[derive(Debug, Default)]
struct Cutter {
    /// What may go on.
    whole: VecDeque<Bytes>,
    /// The beginning of a message.
    part: BytesMut,
    prefix: [u8; PREFIX_BYTES],
    /// Bytes of the prefix that are there.
    known: usize,
    /// Bytes of the message still to come.
    missing: usize,
    /// A message is longer than is allowed: the decoder refuses it by its prefix.
    too_long: bool,
}

impl Cutter {
    fn take(&mut self, mut data: Bytes) {
        let end = self.last_end(&data);
        if let Some(end) = end {
            let rest = data.split_off(end);
            if self.part.is_empty() {
                self.whole.push_back(data);
            } else {
                self.part.extend_from_slice(&data);
                self.whole.push_back(self.part.split().freeze());
            }
            data = rest;
        }
        self.part.extend_from_slice(&data);
        if self.too_long {
            self.give_up();
        }
    }

    /// Where the last whole message ends.
    fn last_end(&mut self, data: &[u8]) -> Option<usize> {
        let (mut at, mut end) = (0, None);
        while at < data.len() && !self.too_long {
            if self.known < PREFIX_BYTES {
                if let (Some(place), Some(byte)) = (self.prefix.get_mut(self.known), data.get(at)) {
                    *place = *byte;
                }
                self.known += 1;
                at += 1;
                if self.known == PREFIX_BYTES {
                    let [_, length @ ..] = self.prefix;
                    self.missing = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
                    self.too_long = self.missing > MAX_MESSAGE_BYTES;
                }
            } else {
                let here = self.missing.min(data.len() - at);
                self.missing -= here;
                at += here;
            }
            if self.known == PREFIX_BYTES && self.missing == 0 {
                self.known = 0;
                end = Some(at);
            }
        }
        end
    }

    /// Lets go what there is of a message; true when there was any.
    fn give_up(&mut self) -> bool {
        let any = !self.part.is_empty();
        if any {
            self.whole.push_back(self.part.split().freeze());
        }
        any
    }

    fn is_empty(&self) -> bool {
        self.whole.is_empty() && self.part.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: usize) -> Vec<u8> {
        let mut message = vec![0];
        message.extend(u32::try_from(length).unwrap().to_be_bytes());
        message.extend(vec![7; length]);
        message
    }

    fn passed(cutter: &mut Cutter) -> Vec<u8> {
        cutter.whole.drain(..).flatten().collect()
    }

    #[test]
    fn messages_go_on_as_soon_as_they_are_whole_however_they_are_cut() {
        let messages = [message(3), message(0), message(40_000), message(1)];
        let all = messages.concat();
        let ends: Vec<usize> = messages
            .iter()
            .scan(0, |end, message| {
                *end += message.len();
                Some(*end)
            })
            .collect();
        for size in [1, 2, 5, 7, 16_384, all.len()] {
            let (mut cutter, mut seen, mut sent) = (Cutter::default(), Vec::new(), 0);
            for part in all.chunks(size) {
                cutter.take(Bytes::copy_from_slice(part));
                sent += part.len();
                seen.extend(passed(&mut cutter));
                assert_eq!(seen.len(), ends.iter().copied().filter(|end| *end <= sent).max().unwrap_or(0), "{size}");
            }
            assert!(seen == all && cutter.is_empty(), "{size}");
        }
    }

    #[test]
    fn a_prefix_alone_waits_and_one_that_is_refused_does_not() {
        let mut cutter = Cutter::default();
        cutter.take(Bytes::from_static(&[0, 0, 64, 0, 0]));
        assert!(passed(&mut cutter).is_empty());
        assert!(cutter.part.capacity() < 1000, "room for what is there");
        assert!(cutter.give_up() && passed(&mut cutter).len() == 5 && !cutter.give_up());
        let mut cutter = Cutter::default();
        cutter.take(Bytes::from_static(&[0, 0, 64, 0, 1]));
        assert_eq!(passed(&mut cutter).len(), 5);
    }
}
