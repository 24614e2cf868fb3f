//! The replay drill, every command of it: it starts its system itself, kills what replays, and ends it all.
use crate::shell;
use crate::system::System;

/// Where the drill stands.
const DRILL: &str = "docs/runbooks/replay-drill.md";
/// What a person waits for after an order or twenty: each payment is captured, or given up.
const ALL_HEARD_OF: &str = r#"all_heard_of() {
  heard_of=$(psql "$PAYMENTS_DATABASE_URL" -XAtc "select (select count(*) from payments where state = 'captured')
    + (select count(*) from dead_letters where state = 'open')")
  [ "$heard_of" = "$(psql "$ORDERS_DATABASE_URL" -XAtc 'select count(*) from orders')" ]
}
until all_heard_of; do sleep 0.2; done
"#;
/// Blocks that place orders.
const ORDERING: &str = "do order ";

#[test]
fn the_drill_goes_as_it_is_told_and_a_killed_replay_goes_on() {
    let system = System::new("up-drill").with_programs();
    let blocks = shell::blocks(DRILL);
    let (first, last) = (&blocks[0], &blocks[blocks.len() - 1]);
    assert!(first.contains("cargo xtask up") && last.contains("cargo xtask down"), "{blocks:#?}");
    let waits = blocks.iter().filter(|block| block.contains(ORDERING)).count();
    assert_eq!(waits, 2, "{blocks:#?}");
    let waiting = |block: &String| if block.contains(ORDERING) { ALL_HEARD_OF } else { ":" };
    let steps = blocks.iter().flat_map(|block| [block.as_str(), waiting(block)]);

    let said = shell::follow(&system, steps);
    for told in
        ["\"status\":\"PENDING\"", "CapturePayment", "drill: killed half-way", "payments: replay", "finished"]
    {
        assert!(said.contains(told), "{told} is missing:\n{said}");
    }
    assert!(said.matches("no dead letter fits").count() >= 2, "all is resolved, both times:\n{said}");
    assert_eq!(system.xtask(&["status"]).status.code(), Some(1), "nothing runs any more");
}
