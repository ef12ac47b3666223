//! How the grants of one lease call are spread over sessions: weighted, and nobody gets more than it has room for.

use crate::session::Reserved;

/// Shares of `granted` for sessions in order. `turn` moves the odd ones on from call to call, so that no session is first for
/// ever.
pub(crate) fn spread(granted: usize, rooms: &[Reserved], turn: usize) -> Vec<usize> {
    let mut shares = vec![0; rooms.len()];
    let mut left = granted;
    // Each round gives every session with room its weighted part, rounded down; what rounding leaves goes out one by one.
    while left > 0 {
        let room = |shares: &[usize], i: usize| rooms[i].slots as usize - shares[i];
        let open: Vec<usize> = (0..rooms.len()).map(|i| (i + turn) % rooms.len()).filter(|&i| room(&shares, i) > 0).collect();
        let weights: usize = open.iter().map(|&i| rooms[i].weight as usize).sum();
        if weights == 0 {
            break;
        }
        let round = left;
        for &i in &open {
            let part = (round * rooms[i].weight as usize / weights).min(room(&shares, i));
            shares[i] += part;
            left -= part;
        }
        if left == round {
            for &i in open.iter().take(left) {
                shares[i] += 1;
                left -= 1;
            }
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rooms(rooms: &[(u32, u32)]) -> Vec<Reserved> {
        rooms.iter().map(|&(slots, weight)| Reserved { slots, weight }).collect()
    }

    #[test]
    fn shares_follow_the_weights_and_the_turn() {
        assert_eq!(spread(9, &rooms(&[(9, 2), (9, 1)]), 0), [6, 3]);
        assert_eq!(spread(10, &rooms(&[(2, 1), (9, 1)]), 0), [2, 8]);
        assert_eq!(spread(1, &rooms(&[(5, 1), (5, 1)]), 0), [1, 0]);
        assert_eq!(spread(1, &rooms(&[(5, 1), (5, 1)]), 1), [0, 1]);
    }

    proptest! {
        #[test]
        fn all_is_given_as_far_as_there_is_room(given in prop::collection::vec((0u32..50, 1u32..9), 1..9), granted in 0usize..300, turn: usize) {
            let rooms = rooms(&given);
            let shares = spread(granted, &rooms, turn % 1000);
            prop_assert!(shares.iter().zip(&rooms).all(|(share, room)| *share <= room.slots as usize));
            let room: usize = rooms.iter().map(|room| room.slots as usize).sum();
            prop_assert_eq!(shares.iter().sum::<usize>(), granted.min(room));
        }
    }
}
