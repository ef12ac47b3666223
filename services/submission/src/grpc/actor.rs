//! Who calls.

use oxcart_types::Limits;
use tonic::Request;

/// Metadata key of the name that a caller gives himself. Nobody checks it: it is for the audit, not for permissions.
const ACTOR: &str = "oxcart-actor";

/// What the caller says, else where the call came from. At most [`Limits::ACTOR_BYTES`].
pub(super) fn of_caller<T>(request: &Request<T>) -> String {
    let named = request.metadata().get(ACTOR).and_then(|name| name.to_str().ok()).filter(|name| !name.is_empty());
    match (named, request.remote_addr()) {
        // Such a value is ASCII: any byte is a boundary.
        (Some(name), _) => name.get(..Limits::ACTOR_BYTES).unwrap_or(name).to_owned(),
        (None, Some(address)) => address.to_string(),
        (None, None) => "local".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_and_cut() {
        let mut request = Request::new(());
        assert_eq!(of_caller(&request), "local");
        request.metadata_mut().insert(ACTOR, "alice@host".parse().expect("ASCII"));
        assert_eq!(of_caller(&request), "alice@host");
        request.metadata_mut().insert(ACTOR, "x".repeat(500).parse().expect("ASCII"));
        assert_eq!(of_caller(&request).len(), Limits::ACTOR_BYTES);
    }
}
