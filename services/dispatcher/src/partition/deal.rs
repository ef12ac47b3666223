//! For whom the leases of one call are: weighted, and nobody gets more than it has room for.

use std::{cmp::Reverse, collections::BinaryHeap};

use crate::session::Reserved;

/// Steps of a session of weight 1; large, so that rounding does not favour anybody.
const STRIDE: u64 = 1 << 32;

/// Positions in `rooms`, one per lease, at most `wanted`. Whatever first part of them is served is shared by the weights, so that
/// the owners can be named before it is known how many leases there are. `turn` moves the odd ones on from call to call, so
/// that no session is first for ever.
pub(super) fn deal(wanted: usize, rooms: &[Reserved], turn: usize) -> Vec<usize> {
    let all: usize = rooms.iter().map(|room| room.slots as usize).sum();
    // Who is due next: the time of its next lease, its place in this turn, its position, and how many it has.
    let mut due: BinaryHeap<_> = (0..rooms.len())
        .map(|place| ((place + turn % rooms.len()) % rooms.len(), place))
        .filter(|&(position, _)| rooms[position].slots > 0)
        .map(|(position, place)| Reverse((stride(&rooms[position]), place, position, 0)))
        .collect();
    let mut owners = Vec::with_capacity(wanted.min(all));
    while owners.len() < wanted
        && let Some(Reverse((time, place, position, given))) = due.pop()
    {
        owners.push(position);
        if given + 1 < rooms[position].slots {
            due.push(Reverse((time + stride(&rooms[position]), place, position, given + 1)));
        }
    }
    owners
}

fn stride(room: &Reserved) -> u64 {
    STRIDE / u64::from(room.weight.max(1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rooms(rooms: &[(u32, u32)]) -> Vec<Reserved> {
        rooms.iter().map(|&(slots, weight)| Reserved { slots, weight }).collect()
    }

    fn shares(wanted: usize, given: &[(u32, u32)], turn: usize) -> Vec<usize> {
        let owners = deal(wanted, &rooms(given), turn);
        (0..given.len()).map(|position| owners.iter().filter(|owner| **owner == position).count()).collect()
    }

    #[test]
    fn shares_follow_the_weights_and_the_turn() {
        assert_eq!(shares(9, &[(9, 2), (9, 1)], 0), [6, 3]);
        assert_eq!(shares(10, &[(2, 1), (9, 1)], 0), [2, 8]);
        assert_eq!(shares(1, &[(5, 1), (5, 1)], 0), [1, 0]);
        assert_eq!(shares(1, &[(5, 1), (5, 1)], 1), [0, 1]);
        assert_eq!(shares(5, &[], 3), Vec::<usize>::new());
    }

    #[test]
    fn a_call_that_finds_little_is_shared_as_well() {
        assert_eq!(deal(6, &rooms(&[(9, 1), (9, 1), (0, 9)]), 0), [0, 1, 0, 1, 0, 1]);
    }

    proptest! {
        #[test]
        fn all_is_given_as_far_as_there_is_room(given in prop::collection::vec((0u32..50, 1u32..9), 0..9), wanted in 0usize..300, turn: usize) {
            let shares = shares(wanted, &given, turn);
            prop_assert!(shares.iter().zip(&given).all(|(share, (slots, _))| *share <= *slots as usize));
            let room: usize = given.iter().map(|(slots, _)| *slots as usize).sum();
            prop_assert_eq!(shares.iter().sum::<usize>(), wanted.min(room));
        }
    }
}
