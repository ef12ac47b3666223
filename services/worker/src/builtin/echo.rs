//! `echo`: returns its input, byte for byte.

use oxcart_sdk::{TaskContext, TaskResult};
use oxcart_types::Payload;

pub(super) async fn run(_ctx: TaskContext, input: Payload) -> TaskResult<Payload> {
    Ok(input)
}

#[cfg(test)]
mod tests {
    use oxcart_types::Limits;

    use super::*;

    #[tokio::test]
    async fn the_input_comes_back() {
        let input = Payload::bytes(vec![0, 255], "image/png", &Limits::default()).expect("bytes");
        assert_eq!(run(TaskContext::detached().0, input.clone()).await, Ok(input));
    }
}
