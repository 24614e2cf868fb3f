//! `up --servers` through its whole life: killed processes come back, a killed `up` leaves nothing, data stays.
use crate::system::{System, alive, eventually, kill9};

#[test]
fn servers_heal_keep_their_data_and_leave_nothing_behind() {
    let system = System::new("up-servers");
    system.must(&["up", "--servers", "--detach"]);
    system.must(&["kafka", "topics", "--create", "--topic", "kept", "--partitions", "3"]);

    let again = system.xtask(&["up", "--servers", "--detach"]);
    assert!(again.status.success(), "a second up shows the first");
    assert!(String::from_utf8_lossy(&again.stderr).contains("already running"));
    assert!(!system.xtask(&["up", "--fresh"]).status.success(), "nothing is wiped under a running system");

    // Killed servers come back by themselves, at the same address.
    let before = system.status();
    for server in ["kafka", "postgres"] {
        let pid = system.pid(server).unwrap();
        kill9(pid);
        eventually(server, || system.pid(server).filter(|now| *now != pid));
    }
    assert_eq!(before["kafka"]["bootstrap"], system.status()["kafka"]["bootstrap"]);
    eventually("the topic after a kill", || {
        let listed = system.xtask(&["kafka", "topics", "--list"]);
        String::from_utf8_lossy(&listed.stdout).contains("kept").then_some(())
    });

    // A killed `up` takes its processes with it, and `down` tidies up.
    let pids: Vec<u64> = ["kafka", "postgres"].iter().filter_map(|server| system.pid(server)).collect();
    assert_eq!(pids.len(), 2);
    kill9(system.owner());
    #[cfg(target_os = "linux")]
    for pid in &pids {
        eventually("the end of an orphan", || (!alive(*pid)).then_some(()));
    }
    system.must(&["down"]);
    assert!(pids.iter().all(|pid| !alive(*pid)));
    assert!(system.must(&["down"]).contains("Nothing was running"));

    // The next one finds its data again.
    system.must(&["up", "--servers", "--detach"]);
    assert!(system.must(&["kafka", "topics", "--list"]).contains("kept"));
    let pids: Vec<u64> = ["kafka", "postgres"].iter().filter_map(|server| system.pid(server)).collect();
    system.must(&["down"]);
    assert!(pids.iter().all(|pid| !alive(*pid)));
    assert_eq!(system.xtask(&["status"]).status.code(), Some(1));

    // Unless it is told to begin afresh.
    system.must(&["up", "--servers", "--detach", "--fresh"]);
    assert!(!system.must(&["kafka", "topics", "--list"]).contains("kept"));
}
